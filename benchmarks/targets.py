"""What is to be reached, whether it was, and how that reads as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.markdown import number, table


class Verdict(StrEnum):
    """What is said of a target."""

    MET = "met"
    MISSED = "**missed**"
    UNTOLD = "cannot be told"
    UNMEASURED = "not measured"


@dataclass(frozen=True)
class Target:
    """Something to reach.

    Args:
        text: what it says.
        limit: that the measured figure may be at most, or at least with `at_least`.
        measured: the figure; None where there is none.
        at_least: which way the limit goes.
        digits: of the figure to show, behind the point.
        error: how far to either side of the figure the truth may be, by the sample that it was measured on.
    """

    text: str
    limit: float
    measured: float | None
    at_least: bool = False
    digits: int = 2
    error: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """A figure beyond the limit misses it, whatever its error; one within meets it if all that may be true does."""
        if self.measured is None:
            return Verdict.UNMEASURED
        if not self._reached(self.measured):
            return Verdict.MISSED
        worst = self.measured - self.error if self.at_least else self.measured + self.error
        return Verdict.MET if self._reached(worst) else Verdict.UNTOLD

    @property
    def met(self) -> bool | None:
        """Whether it is reached; None where it was not measured, or cannot be told by what was."""
        return {Verdict.MET: True, Verdict.MISSED: False}.get(self.verdict)

    def shown(self) -> str:
        """The figure, with as many digits as it takes to see on which side of the limit it is, and its error."""
        if self.measured is None:
            return number(None, self.digits)
        digits, reached = self.digits, self._reached(self.measured)
        while self._reached(round(self.measured, digits)) != reached:
            digits += 1
        return number(self.measured, digits) + (f" ± {number(self.error, self.digits)}" if self.error else "")

    def _reached(self, figure: float) -> bool:
        return figure >= self.limit if self.at_least else figure <= self.limit


def target_table(targets: Iterable[Target]) -> str:
    """Markdown: a line a target."""
    rows = [
        (target.text, f"{'≥' if target.at_least else '≤'} {target.limit:g}", target.shown(), target.verdict)
        for target in targets
    ]
    return table(("target", "limit", "measured", ""), rows)
