"""Installed distributions and whether they fit each other; nothing is imported to find out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from itertools import zip_longest

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?$")
_CLAUSE = re.compile(r"^\s*(~=|===|==|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?")


@dataclass(frozen=True)
class Requirement:
    """What one distribution says it needs.

    Args:
        name: normalised, of the distribution that is needed.
        clauses: the clauses of its version, such as (">=", "6.31.1"); a "==" of a whole series ends with ".*".
        marker: the condition it is needed under, empty for always.
    """

    name: str
    clauses: tuple[tuple[str, str], ...]
    marker: str

    def __str__(self) -> str:
        return self.name + ",".join(operator + version for operator, version in self.clauses)

    def admits(self, version: str) -> bool:
        """Whether a version will do; pre-releases count as their release."""
        return all(_CHECKS[operator](_release(version), wanted) for operator, wanted in self.clauses)


@dataclass(frozen=True)
class Distribution:
    """One installed distribution.

    Args:
        name: normalised: lower case, with hyphens.
        version: the installed version.
        requirements: that it declares.
    """

    name: str
    version: str
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def declaring(cls, name: str, version: str, requirements: Iterable[str] = ()) -> Distribution:
        """From requirements as they are written in metadata: `keras>=3.12.0; extra == "x"`."""
        return cls(normalized(name), version, tuple(map(parse_requirement, requirements)))


Installed = Mapping[str, Distribution]


def installed() -> dict[str, Distribution]:
    """All of this environment, by normalised name; of two of the same name the first on the path counts."""
    found: dict[str, Distribution] = {}
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name and normalized(name) not in found:
            found[normalized(name)] = Distribution.declaring(name, each.version, each.requires or ())
    return found


def normalized(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirement(text: str) -> Requirement:
    """One entry of `Requires-Dist`; a version that cannot be told, such as a URL, asks for none."""
    match = _REQUIREMENT.match(text)
    if match is None:
        return Requirement(normalized(text.strip()), (), "")
    clauses = []
    for part in match[2].split(","):
        if clause := _CLAUSE.match(part):
            clauses.append((clause[1], clause[2] + (clause[3] or "")))
    return Requirement(normalized(match[1]), tuple(clauses), (match[3] or "").strip())


def outside_range(distribution: Distribution, found: Installed) -> list[tuple[Requirement, str]]:
    """Requirements that hold always whose distribution is there in another version, each with that version."""
    always = [each for each in distribution.requirements if not each.marker and each.name in found]
    versions = [(each, found[each.name].version) for each in always]
    return [(each, version) for each, version in versions if not each.admits(version)]


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def _order(left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Negative, zero or positive; 3.1 and 3.1.0 are equal."""
    pairs = list(zip_longest(left, right, fillvalue=0))
    return next((a - b for a, b in pairs if a != b), 0)


def _equal(version: tuple[int, ...], wanted: str) -> bool:
    series = _release(wanted)
    return version[: len(series)] == series if wanted.endswith(".*") else _order(version, series) == 0


_CHECKS: Mapping[str, Callable[[tuple[int, ...], str], bool]] = {
    ">=": lambda version, wanted: _order(version, _release(wanted)) >= 0,
    "<=": lambda version, wanted: _order(version, _release(wanted)) <= 0,
    ">": lambda version, wanted: _order(version, _release(wanted)) > 0,
    "<": lambda version, wanted: _order(version, _release(wanted)) < 0,
    "==": _equal,
    "===": _equal,
    "!=": lambda version, wanted: not _equal(version, wanted),
    "~=": lambda version, wanted: (
        _order(version, _release(wanted)) >= 0 and version[: len(_release(wanted)) - 1] == _release(wanted)[:-1]
    ),
}
