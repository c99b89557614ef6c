"""Options of `bench` that say what measurements are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import percentage
from vit_deploy.errors import UsageError

USUAL_REGRESSION = 0.05  # that a median may be slower, beyond chance


@panel("Comparing")
@dataclass(frozen=True)
class BaselineOptions:
    """What measurements are compared with, and where they are kept.

    Args:
        save: file for the results with all samples.
        baseline: file of results that were saved, to compare with.
        max_regression: fraction that a median may be slower, beyond chance; None for 5 percent.
        any_host: whether a baseline of another machine counts.
    """

    save: Annotated[
        Path | None, Option(metavar="FILE.json", help="Write the results with all samples, for --baseline.")
    ] = None
    baseline: Annotated[
        Path | None, Option(metavar="FILE.json", help="Compare with results that were saved; exit 1 if slower.")
    ] = None
    max_regression: Annotated[
        float | None,
        Option(
            metavar="N%",
            help="How much slower a median may be, beyond chance.",
            show_default="5%",
            parse=percentage,
        ),
    ] = None
    any_host: Annotated[bool, Option(help="Compare with a baseline of another machine.")] = False

    @property
    def allowed(self) -> float:
        """The fraction that a median may be slower."""
        return USUAL_REGRESSION if self.max_regression is None else self.max_regression

    def refuse_idle(self) -> None:
        """Refuse what says something of a comparison where there is none.

        Raises:
            UsageError: an allowance, or another machine's results, without a baseline.
        """
        stated = {"--max-regression": self.max_regression is not None, "--any-host": self.any_host}
        if self.baseline is None and any(stated.values()):
            said = " and ".join(name for name, is_stated in stated.items() if is_stated)
            raise UsageError(f"{said}: there is no --baseline to compare with", fix="add --baseline FILE.json")
