"""The installed Python packages, and what they require of one another; nothing is imported to tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Package:
    """One installed package.

    Args:
        name: normalised name: lower case, with hyphens.
        version: the version as it is installed.
        requirements: what the package declares, the names normalised.
    """

    name: str
    version: str
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def declaring(cls, name: str, version: str, requirements: Iterable[str] = ()) -> Package:
        """A package with requirements as they are written in metadata: `keras>=3.12.0; extra == "x"`."""
        return cls(canonicalize_name(name), version, tuple(_readable(requirements)))


Installed = Mapping[str, Package]


def installed() -> dict[str, Package]:
    """All packages of this environment, by normalised name; of two of the same name the first on the path counts."""
    found: dict[str, Package] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and canonicalize_name(name) not in found:
            found[canonicalize_name(name)] = Package.declaring(name, distribution.version, distribution.requires or ())
    return found


def admits(requirement: Requirement, version: str) -> bool:
    """Whether a version will do; a pre-release counts as its release, and a version that cannot be read always does."""
    try:
        release = Version(version).base_version
    except InvalidVersion:
        return True
    return requirement.specifier.contains(release)


def unmet(package: Package, here: Installed) -> list[tuple[Requirement, str]]:
    """Requirements that hold always whose package is installed in another version, each with that version."""
    always = [
        requirement for requirement in package.requirements if requirement.marker is None and requirement.name in here
    ]
    versions = [(requirement, here[requirement.name].version) for requirement in always]
    return [(requirement, version) for requirement, version in versions if not admits(requirement, version)]


def _readable(requirements: Iterable[str]) -> Iterator[Requirement]:
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:  # of a package that no installer of today would take
            continue
        requirement.name = canonicalize_name(requirement.name)
        yield requirement
