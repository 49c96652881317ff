"""What some tests need beside Python, and what they do without it."""

import os
import shutil
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

import pytest

from tests.support.broker import LIBS

PREFIX = "not run: "


class Need(NamedTuple):
    """Programs that some tests start."""

    what: str
    programs: tuple[str, ...]
    install: str


KAFKA = Need("Kafka", ("java",), "openjdk-17-jre-headless")
MAVEN = Need("Kafka", ("mvn",), "maven")
JAVAC = Need("the peer on Kafka Streams", ("mvn", "javac"), "maven openjdk-17-jdk-headless")
BROWSER = Need("a browser", ("chromium", "chromedriver"), "chromium chromium-driver")
PROMETHEUS = Need("Prometheus", ("prometheus", "promtool"), "prometheus")
NAMESPACES = Need(
    "containers", ("ip", "unshare", "nsenter", "setpriv", "ps"), "iproute2 util-linux procps"
)
POSTGRES = Need("PostgreSQL", ("psql", "pg_isready"), "postgresql")
COMPILER = Need("a clock that can be set", ("cc",), "gcc libc6-dev")
KUBECTL = Need("rendered manifests", ("kubectl",), "kubectl 1.26 or later (.ci/kubectl builds it)")


def absent(need: Need) -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in need.programs if shutil.which(program) is None]


def report() -> Iterator[str]:
    """Yield a line for each kind of test that this machine cannot run, and what to install."""
    needs = [KAFKA, JAVAC, BROWSER, PROMETHEUS, NAMESPACES, COMPILER, KUBECTL]
    if not LIBS.exists():
        needs.append(MAVEN)
    for need in needs:
        if programs := absent(need):
            yield (
                f"no {', '.join(programs)}: tests with {need.what} are skipped; "
                f"install {need.install}"
            )
    if os.geteuid():
        yield "not root: tests with containers and with a full disk are skipped"


def require(need: Need) -> None:
    """Go on where all programs are installed."""
    if programs := absent(need):
        missing(f"no {', '.join(programs)}; install {need.install}")


def missing(what: str) -> NoReturn:
    """Skip with the reason; in CI fail, because there everything must run."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(PREFIX + what)
