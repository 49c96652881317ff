# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SCALE ?= 0.1
N ?= 10000
ARGS ?=

.PHONY: demo test simulate check audit bench lock clean

$(VENV)/run: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.txt
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.txt
	touch $@

demo: $(VENV)/run
	@$(BIN)/heartwheel demo $(ARGS)

test: $(VENV)/dev
	$(BIN)/python -m pytest $(or $(ARGS),--cov)

simulate: $(VENV)/dev
	$(BIN)/python -m tests.simulation.flow $(N) $(ARGS)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Asks the Python Package Index for known vulnerabilities, so it needs a network.
audit: $(VENV)/dev
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.txt $(ARGS)

bench: $(VENV)/dev
	$(BIN)/python -m benchmarks.bench --scale $(SCALE) $(ARGS)

lock: $(VENV)/dev
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --allow-unsafe --extra build --output-file requirements.txt pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --allow-unsafe --extra build --extra dev --output-file requirements-dev.txt pyproject.toml

clean:
	rm -rf $(VENV) .cache bench-out
