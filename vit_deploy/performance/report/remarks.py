"""What has to be known of the cases of a report, each thing once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.naming import Names, in_words, setting
from vit_deploy.performance.report.wording import counted

MOST_NAMED = 3  # cases that a remark names before it counts them
NUMBER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)(?![\w.]*\w)")


@dataclass(frozen=True)
class Remark:
    """One thing that is true of some cases.

    Args:
        text: what is true; a figure in which the cases differ is given as its range.
        cases: names of the cases.
        whom: the same in words: all, how many, or which.
        unsteady: whether the figures of these cases are not to be trusted.
    """

    text: str
    cases: tuple[str, ...]
    whom: str
    unsteady: bool


def remarks(gathered: Gathered, names: Names) -> list[Remark]:
    """The remarks, those first that make a case unsteady, and of these those of most cases."""
    found: dict[tuple[tuple[str, ...], bool], list[tuple[str, str]]] = {}
    for case in gathered.cases:
        name = f"{names.series(case)}, {in_words(setting(case))}"
        for text in dict.fromkeys(case.latency.notes):
            key = (tuple(NUMBER.split(text)[::2]), text in case.latency.unsteady)
            found.setdefault(key, []).append((name, text))
    made = [
        Remark(
            _merged([text for _, text in those]),
            tuple(name for name, _ in those),
            _whom([name for name, _ in those], len(gathered.cases)),
            unsteady,
        )
        for (_, unsteady), those in found.items()
    ]
    return sorted(made, key=lambda remark: (not remark.unsteady, -len(remark.cases)))


def _merged(texts: Sequence[str]) -> str:
    """One text for several that differ in their figures alone."""
    parts = [NUMBER.split(text) for text in texts]
    merged = list(parts[0])
    for place in range(1, len(merged), 2):
        values = sorted({part[place] for part in parts}, key=float)
        merged[place] = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return "".join(merged)


def _whom(cases: Sequence[str], all_cases: int) -> str:
    if len(cases) == all_cases > 1:
        return f"all {all_cases} cases"
    return "; ".join(cases) if len(cases) <= MOST_NAMED else f"{len(cases)} of {counted(all_cases, 'case')}"
