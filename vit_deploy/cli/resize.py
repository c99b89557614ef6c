"""`vit-deploy resize`: the same model for images, or patches, of another size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import CheckpointFile, Force, Like, OutputFile, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, Option
from vit_deploy.core.options.parsing import size

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.api.checkpoints import Resized

SPARE = ("like", "size", "digest")  # what a narrow terminal leaves out first, from the end

NewImageSize = Annotated[
    tuple[int, int] | None,
    Option(metavar="N|HxW", help="Pixels, as 384 or 384x512 (height x width).", show_default="as it is", parse=size),
]
NewPatchSize = Annotated[
    tuple[int, int] | None,
    Option(metavar="N|HxW", help="Pixels, as 16 or 8x16 (height x width).", show_default="as it is", parse=size),
]


@command
def resize(
    checkpoint: CheckpointFile,
    output: OutputFile,
    image_size: NewImageSize = None,
    patch_size: NewPatchSize = None,
    like: Like = None,
    report: Annotated[bool, Option(help="Say how far the features drift on the sample images.")] = False,
    force: Force = False,
    *,
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Resample the position table and the patch kernel, as the program does that the checkpoint came from."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output

    out = Output("resize", printing)
    with out.progress() as progress:
        resized = api.resize(
            checkpoint,
            output,
            image_size=image_size,
            patch_size=patch_size,
            like=like,
            report=report,
            reading=reading,
            force=force,
            progress=progress,
        )
    out.tell_assumed(resized)
    for note in resized.notes:
        out.note(note)
    cells = _cells(resized.result)
    columns = [paths(name) if name == "checkpoint" else name for name in cells]
    spare = [*[name for name in cells if name not in ("checkpoint", *SPARE)], *SPARE]
    return out.show(resized, columns=ranked(columns, spare), rows=[list(cells.values())])


def _cells(file: Resized) -> dict[str, str]:
    from vit_deploy.core.quantities import megabytes

    cells = {
        "checkpoint": str(file.path),
        "size": megabytes(file.bytes),
        "images": _change(file.before["image_size"], file.after["image_size"]),
        "patches": _change(file.before["patch_size"], file.after["patch_size"]),
        "like": file.convention,
        "digest": file.checkpoint.digest()[:12],
    }
    if file.drift is not None:
        agreement = file.drift.top1_agreement
        cells["features' cosine, mean"] = f"{file.drift.cosine_mean:.4f}"
        cells["least"] = f"{file.drift.cosine_min:.4f}"
        cells["same first class"] = "-" if agreement is None else f"{agreement:.0%}"
    return cells


def _change(before: list[int], after: list[int]) -> str:
    old, new = ("x".join(map(str, size)) for size in (before, after))
    return old if old == new else f"{old} to {new}"
