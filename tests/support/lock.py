"""Whether a lock file is complete, so that nothing has to be resolved when it is installed."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Lock = Mapping[str, Requirement]
RequirementsOf = Callable[[str], Iterable[Requirement]]


def environments() -> list[dict[str, str]]:
    """Return the values of markers for every machine that the lock is for."""
    own = {name: str(value) for name, value in default_environment().items()}
    linux = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}
    python = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    return [
        own
        | linux
        | python
        | {
            "platform_machine": machine,
            "python_version": version,
            "python_full_version": f"{version}.0",
            "implementation_version": f"{version}.0",
        }
        for machine, version in product(("x86_64", "aarch64"), ("3.11", "3.12"))
    ]


def read_lock(text: str) -> tuple[dict[str, Requirement], list[str]]:
    """Return what is locked, by name, and the lines that lock nothing: no version or no hash."""
    lock, faults = {}, []
    for line in text.replace("\\\n", " ").splitlines():
        entry, _, hashes = line.partition(" --hash=sha256:")
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        if entry.startswith("-"):
            faults.append(f"{entry} is an option, which a lock does not need")
            continue
        package = Requirement(entry)
        if [part.operator for part in package.specifier] != ["=="] or not hashes:
            faults.append(f"{entry.strip()} has no version or no hash")
        lock[canonicalize_name(package.name)] = package
    return lock, faults


def unmet(
    lock: Lock,
    wanted: Iterable[Requirement],
    requirements_of: RequirementsOf,
    environment: Mapping[str, str],
) -> Iterator[str]:
    """Yield each requirement, of the project and of every locked package, that the lock lacks."""
    for requirement in wanted:
        yield from _unmet(lock, "the project", requirement, environment, {""})
    for name, package in lock.items():
        for requirement in requirements_of(name):
            yield from _unmet(lock, name, requirement, environment, {"", *package.extras})


def _unmet(
    lock: Lock,
    owner: str,
    requirement: Requirement,
    environment: Mapping[str, str],
    extras: Iterable[str],
) -> Iterator[str]:
    marker = requirement.marker
    if marker and not any(marker.evaluate({**environment, "extra": extra}) for extra in extras):
        return
    package = lock.get(canonicalize_name(requirement.name))
    if package is None or (package.marker and not package.marker.evaluate({**environment})):
        yield f"{owner} requires {requirement}, which is not locked"
        return
    version = next(iter(package.specifier)).version
    if not requirement.specifier.contains(version, prereleases=True):
        yield f"{owner} requires {requirement}, but {version} is locked"
    if not requirement.extras <= package.extras:
        yield f"{owner} requires {requirement}, but {package.name} is locked without the extra"
