"""What is to be reached, was it, and how does that read as a table?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.markdown import number, table

VERDICTS = {True: "met", False: "**missed**", None: "not measured"}


@dataclass(frozen=True)
class Target:
    """Something to reach.

    Args:
        text: what it says.
        limit: that the measured figure may be at most, or at least with `at_least`.
        measured: the figure; None where there is none.
        at_least: which way the limit goes.
        digits: of the figure to show, behind the point.
    """

    text: str
    limit: float
    measured: float | None
    at_least: bool = False
    digits: int = 2

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured."""
        return None if self.measured is None else self._reached(self.measured)

    def shown(self) -> str:
        """The figure, with as many digits as it takes to see on which side of the limit it is."""
        digits = self.digits
        while self.measured is not None and self._reached(round(self.measured, digits)) != self.met:
            digits += 1
        return number(self.measured, digits)

    def _reached(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


def target_table(targets: Iterable[Target]) -> str:
    """Markdown: a line a target."""
    rows = [
        (target.text, f"{'≥' if target.at_least else '≤'} {target.limit:g}", target.shown(), VERDICTS[target.met])
        for target in targets
    ]
    return table(("target", "limit", "measured", ""), rows)
