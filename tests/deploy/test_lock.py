"""The lock files are complete: an installation resolves nothing, so no later release changes it."""

import tomllib
from importlib.metadata import requires, version
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.support.broker import ROOT
from tests.support.lock import environments, read_lock, unmet

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
HASH = " --hash=sha256:0"
# pytest-cov as it is: it requires an extra.
PUBLISHED = {
    "pytest-cov": ["coverage[toml]>=7.10.6"],
    "coverage": ['tomli; python_full_version <= "3.11.0a6" and extra == "toml"'],
}


def locked(name: str) -> dict[str, Requirement]:
    """Return what a lock file of this project locks."""
    lock, faults = read_lock((ROOT / name).read_text())
    assert not faults
    return lock


def project_requirements(*extras: str) -> list[Requirement]:
    """Return what the project requires to be built and to run, and for these extras."""
    project = PROJECT["project"]
    lists = [PROJECT["build-system"]["requires"], project["dependencies"]]
    lists += [project["optional-dependencies"][extra] for extra in extras]
    return [Requirement(text) for texts in lists for text in texts]


def installed_requirements(name: str) -> list[Requirement]:
    """Return what an installed package requires."""
    return [Requirement(text) for text in requires(name) or ()]


def faults_of(lock_text: str) -> list[str]:
    """Return what is wrong with a lock for a project that requires pytest-cov."""
    lock, faults = read_lock(lock_text)

    def requirements_of(name: str) -> list[Requirement]:
        return [Requirement(text) for text in PUBLISHED.get(name, ())]

    return faults + list(
        unmet(lock, [Requirement("pytest-cov")], requirements_of, environments()[0])
    )


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements.txt", ()),
        ("requirements-avro.txt", ("avro",)),
        ("requirements-parquet.txt", ("parquet",)),
        ("requirements-dev.txt", ("dev", "avro", "parquet")),
    ],
)
@pytest.mark.parametrize("environment", environments(), ids=lambda e: e["python_version"])
def test_lock_has_all_that_is_required(
    file: str, extras: tuple[str, ...], environment: dict[str, str]
) -> None:
    """With extras and markers, for every Python and machine that the lock is for."""
    wanted = project_requirements(*extras)
    assert list(unmet(locked(file), wanted, installed_requirements, environment)) == []


def test_locked_packages_are_the_installed_ones() -> None:
    """What is tested here is what the lock says."""
    for name, package in locked("requirements-dev.txt").items():
        assert package.specifier.contains(version(name), prereleases=True), package


@pytest.mark.parametrize(
    "file", ["requirements.txt", "requirements-avro.txt", "requirements-parquet.txt"]
)
def test_lock_for_development_has_all_of_the_other_ones(file: str) -> None:
    """The tests run with the versions that a user gets."""
    development = locked("requirements-dev.txt")
    for name, package in locked(file).items():
        assert development[name].specifier == package.specifier


def test_lock_without_a_required_extra_is_incomplete() -> None:
    """pip would look for a version with the extra, and take the newest, which has no hash."""
    assert faults_of(f"pytest-cov==7.1.0{HASH}\ncoverage[toml]==7.17.3{HASH}\n") == []
    assert faults_of(f"pytest-cov==7.1.0{HASH}\ncoverage==7.17.3{HASH}\n") == [
        "pytest-cov requires coverage[toml]>=7.10.6, but coverage is locked without the extra"
    ]


@pytest.mark.parametrize(
    ("lock", "fault"),
    [
        ("coverage[toml]==7.17.3" + HASH, "the project requires pytest-cov, which is not locked"),
        (f"pytest-cov==7.1.0{HASH}\ncoverage[toml]==7.0.0{HASH}", "but 7.0.0 is locked"),
        (
            f'pytest-cov==7.1.0{HASH}\ncoverage[toml]==7.17.3 ; python_version < "3.11"{HASH}',
            "which is not locked",
        ),
        ("pytest-cov==7.1.0", "pytest-cov==7.1.0 has no version or no hash"),
        ("pytest-cov>=7" + HASH, "pytest-cov>=7 has no version or no hash"),
        ("--index-url https://index.example", "is an option"),
    ],
)
def test_lock_with_a_fault_is_found(lock: str, fault: str) -> None:
    """A package, a version, a hash or a machine that is missing each has its message."""
    assert any(fault in found for found in faults_of(lock))
