"""Checks of the options that TensorRT plans alone have."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.tensorrt import PlanOptions
from vit_deploy.errors import UsageError
from vit_deploy.exporters.plan import Job

USUAL = PlanOptions()
NAMES = {
    "flavour": "--tensorrt",
    "batches": "--batch-range",
    "allow_tf32": "--allow-tf32",
    "unproven": "--unproven",
}


def check_plan_options(jobs: Sequence[Job], options: PlanOptions) -> None:
    """Refuse what could only be left out in silence.

    Raises:
        UsageError: options for plans where none is made, or a range of batches where the batch is fixed.
    """
    given = [name for field, name in NAMES.items() if getattr(options, field) != getattr(USUAL, field)]
    compiled = [job for job in jobs if FORMATS[job.format].made_of]
    if given and not compiled:
        raise UsageError(f"{', '.join(given)}: for TensorRT plans alone; add --format tensorrt, or leave it out")
    if options.batches != USUAL.batches and compiled[0].options.batch is not None:
        raise UsageError("--batch-range and --batch N: the batch is either a range or fixed")
