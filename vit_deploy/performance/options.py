"""Options of `bench` that say what measurements are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import percentage


@panel("Comparing")
@dataclass(frozen=True)
class BaselineOptions:
    """What measurements are compared with, and where they are kept.

    Args:
        save: file for the results with all samples.
        baseline: file of results that were saved, to compare with.
        max_regression: fraction that a median may be slower, beyond chance.
        any_host: whether a baseline of another machine counts.
    """

    save: Annotated[
        Path | None, Option(metavar="FILE.json", help="Write the results with all samples, for --baseline.")
    ] = None
    baseline: Annotated[
        Path | None, Option(metavar="FILE.json", help="Compare with results that were saved; exit 1 if slower.")
    ] = None
    max_regression: Annotated[
        float,
        Option(
            metavar="N%",
            help="How much slower a median may be, beyond chance.",
            show_default="5%",
            parse=percentage,
        ),
    ] = 0.05
    any_host: Annotated[bool, Option(help="Compare with a baseline of another machine.")] = False
