"""The options of `export` that TensorRT plans alone have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from collections.abc import Sequence

    from vit_deploy.exporters import PlanOptions
    from vit_deploy.exporters.plan import Job

FLAVOURS = {"full": "tensorrt", "rtx": "tensorrt_rtx"}

TensorRT = Annotated[
    str | None,
    typer.Option(
        metavar="full|rtx",
        help="What builds TensorRT plans: TensorRT, or TensorRT for RTX, which needs no GPU for that.",
        show_default="full where it and a GPU are",
    ),
]
BatchRanges = Annotated[
    str | None,
    typer.Option(
        "--batch-range",
        metavar="MIN,BEST,MAX",
        help="Images a call of TensorRT plans with an open batch.",
        show_default="1,8,32",
    ),
]
PlanTF32 = Annotated[
    bool, typer.Option("--allow-tf32", help="Let fp32 plans round factors to 11 bits; has its own tolerance.")
]
Unproven = Annotated[
    bool, typer.Option("--unproven", help="Publish TensorRT plans without proof, as <name>.unproven; exits with 1.")
]


def plan_options(
    jobs: Sequence[Job], flavour: str | None, batch_range: str | None, *, allow_tf32: bool, unproven: bool
) -> PlanOptions:
    """What the options above say together.

    Raises:
        ConfigError: batches that cannot be.
        typer.BadParameter: no such TensorRT, or options for plans where none is made.
    """
    from vit_deploy.cli.options import parse_counts
    from vit_deploy.errors import ConfigError
    from vit_deploy.exporters import MADE_OF, PlanOptions
    from vit_deploy.formats.tensorrt_plan import BatchRange

    asked = {"--tensorrt": flavour, "--batch-range": batch_range, "--allow-tf32": allow_tf32, "--unproven": unproven}
    given = [name for name, value in asked.items() if value]
    compiled = [job for job in jobs if job.format in MADE_OF]
    if given and not compiled:
        raise typer.BadParameter(
            f"{', '.join(given)}: for TensorRT plans alone; add --format tensorrt, or leave it out"
        )
    if flavour is not None and flavour not in FLAVOURS:
        raise typer.BadParameter(f"--tensorrt is {flavour!r}; expected {' or '.join(FLAVOURS)}")
    batches = BatchRange()
    if batch_range is not None:
        if compiled[0].options.batch is not None:
            raise typer.BadParameter("--batch-range and --batch N: the batch is either a range or fixed")
        counts = [parse_counts(each, "--batch-range") for each in batch_range.split(",")]
        if len(counts) != 3:
            raise ConfigError(
                f"--batch-range is {batch_range!r}; expected the least, the best and the most images a call",
                fix="as in --batch-range 1,8,32",
            )
        batches = BatchRange(*(count for each in counts for count in each))
    return PlanOptions(FLAVOURS.get(flavour or ""), batches, allow_tf32=allow_tf32, unproven=unproven)
