# Two commands do all the set-up: `make demo` and `make test`.
VENV := .venv
BIN := $(VENV)/bin
SCALE ?= 0.1
N ?= 10000
HOURS ?= 1
ARGS ?=

# Bytewax has wheels for no Python after 3.12; ensurepip is missing where Debian's venv package is.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
NEEDED := $(if $(PYTHON),PYTHON=$(PYTHON) is not,There is no) Python 3.11 or 3.12 with venv: \
install it with "apt install python3.11-venv" (Debian 12), "apt install python3.12-venv" (Ubuntu 24.04), \
"brew install python@3.12" (macOS) or "uv python install 3.12" (anywhere); \
if it is not on PATH, add PYTHON=/path/to/python3.12
python = $(or $(shell for python in $(or $(PYTHON),python3.12 python3.11 python3); do \
  "$$python" -c "$(FITS)" 2>/dev/null && echo "$$python" && break; done),$(error $(NEEDED)))

# Another Python than that of .venv makes .venv again.
ifneq ($(shell $(BIN)/python -VV 2>&1 || true),$(shell $(or $(PYTHON),$(BIN)/python) -VV 2>&1 || true))
.PHONY: $(VENV)/run
endif

# What was published after the lock is never looked at: no dependency is resolved here.
INSTALL := $(BIN)/pip install --quiet --no-deps
LOCK := $(BIN)/pip-compile --quiet --generate-hashes --no-strip-extras --allow-unsafe \
  --no-emit-index-url --no-emit-find-links --all-build-deps

.PHONY: demo test test-fast test-slow simulate torture check check-lock docs audit bench bench-rows bench-peers lock clean

$(VENV)/run: requirements.txt pyproject.toml
	$(python) -m venv --clear $(VENV)
	$(INSTALL) --require-hashes -r requirements.txt
	$(INSTALL) --no-build-isolation -e .
	$(BIN)/pip check
	touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.txt
	$(INSTALL) --require-hashes -r requirements-dev.txt
	$(BIN)/pip check
	touch $@

demo: $(VENV)/run
	@$(BIN)/heartwheel demo $(ARGS)

# Without a broker, for each small step.
test-fast: $(VENV)/dev
	$(BIN)/python -m pytest -n 2 -m "not kafka and not slow" $(ARGS)

# All that a change needs, a real Kafka included; session_logic is covered to the last branch.
test: $(VENV)/dev
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -n 2 -m "not kafka and not slow" --cov
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "kafka and not slow"
endif

# Most of them wait for brokers and timeouts, so that two cores have room for three at a time.
test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -n 3 --dist loadfile -m slow $(ARGS)

simulate: $(VENV)/dev
	$(BIN)/python -m tests.simulation.flow $(N) $(ARGS)

# Three brokers and a run under load, which are killed, paused, stopped and cut off at random.
torture: $(VENV)/dev
	$(BIN)/python -m tests.torture $(HOURS) $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Writes what follows from the code into the pages: settings and transitions.
docs: $(VENV)/dev
	$(BIN)/python -m docs.generate

# Asks the Python Package Index for known vulnerabilities, so it needs a network.
audit: $(VENV)/dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-avro.txt $(ARGS)

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.bench --scale $(SCALE) $(ARGS)

# One table of variants, each with a short steady phase; ARGS="plain mapped" chooses some.
bench-rows: $(VENV)/dev
	$(BIN)/python -m benchmarks.rows --scale $(SCALE) $(ARGS)

# Ours and the same job on Kafka Streams, one after the other under the same load.
bench-peers: $(VENV)/dev
	$(BIN)/python -m benchmarks.comparison --scale $(SCALE) $(ARGS)

lock: $(VENV)/dev
	$(LOCK) --output-file requirements.txt pyproject.toml
	$(LOCK) --extra avro --constraint requirements.txt --output-file requirements-avro.txt pyproject.toml
	$(LOCK) --extra parquet --constraint requirements.txt --output-file requirements-parquet.txt pyproject.toml
	$(LOCK) --extra dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml

# Each locked package has a wheel with a locked hash, for both Pythons. (A test: nothing is missing.)
check-lock: $(VENV)/dev
	@for version in 3.11 3.12; do \
	  $(BIN)/pip install --quiet --no-deps --dry-run --ignore-installed --target $(VENV)/none \
	    --only-binary :all: --python-version $$version --require-hashes -r requirements-dev.txt \
	  || exit 1; done

clean:
	rm -rf $(VENV) .cache bench-out
