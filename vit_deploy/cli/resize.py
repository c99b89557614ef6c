"""`vit-deploy resize`: the same model for images, or patches, of another size."""

from __future__ import annotations

from typing import Annotated

import typer

from vit_deploy.cli.options import CheckpointFile, Force, Like, OutputFile, OutputOptions, parse_size
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions

NewImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size", metavar="N|HxW", help="Pixels, as 384 or 384x512 (height x width).", show_default="as it is"
    ),
]
NewPatchSize = Annotated[
    str | None,
    typer.Option(
        "--patch-size", metavar="N|HxW", help="Pixels, as 16 or 8x16 (height x width).", show_default="as it is"
    ),
]


@command
def resize(
    checkpoint: CheckpointFile,
    output: OutputFile,
    image_size: NewImageSize = None,
    patch_size: NewPatchSize = None,
    like: Like = None,
    *,
    reading: CheckpointOptions,
    report: Annotated[
        bool, typer.Option("--report", help="Say how far the features drift on the sample images.")
    ] = False,
    force: Force = False,
    printing: OutputOptions,
) -> int:
    """Resample the position table and the patch kernel, as the program does that the checkpoint came from."""
    from vit_deploy import checkpoints
    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli.output import Output
    from vit_deploy.core.documents import saved
    from vit_deploy.core.quantities import megabytes
    from vit_deploy.core.resize import as_convention, assumed_convention, convention_of, sizes
    from vit_deploy.core.resize import resize as run

    if image_size is None and patch_size is None:
        raise typer.BadParameter("nothing to resize to; give --image-size, --patch-size or both")
    pixels = parse_size(image_size, "--image-size") if image_size is not None else None
    patch = parse_size(patch_size, "--patch-size") if patch_size is not None else None
    asked = as_convention(like) if like is not None else None
    checkpoints.check_target(output, force=force)
    out = Output("resize", printing)
    with out.progress() as progress:
        progress(f"reading {checkpoint}")
        loaded = checkpoints.load(checkpoint, config=stated_fields(reading))
        progress("resizing")
        resized = run(loaded, pixels, patch, asked)
        progress(f"writing {output}")
        checkpoints.save(resized, output, force=force)
        drifted = None
        if report:
            from vit_deploy.verification.drift import drift

            progress("comparing the features")
            drifted = drift(loaded, resized)
    convention = convention_of(loaded, asked)
    before, after = sizes(loaded.config), sizes(resized.config)
    record = saved(output, resized) | {
        "from": before,
        "to": after,
        "convention": str(convention),
        "drift": drifted.to_dict() if drifted else None,
    }
    out.assumed(checkpoint, loaded.provenance)
    if resized is not loaded and (note := assumed_convention(loaded, asked)):
        out.note(note)
    if resized is loaded:
        out.note("the checkpoint has these sizes already; nothing was resampled")
    columns = ["checkpoint", "size", "images", "patches", "like", "digest"]
    row = [
        str(output),
        megabytes(record["bytes"]),
        _change(before["image_size"], after["image_size"]),
        _change(before["patch_size"], after["patch_size"]),
        str(convention),
        resized.digest()[:12],
    ]
    if drifted:
        columns += ["features' cosine, mean", "least", "same first class"]
        agreement = drifted.top1_agreement
        row += [
            f"{drifted.cosine_mean:.4f}",
            f"{drifted.cosine_min:.4f}",
            "-" if agreement is None else f"{agreement:.0%}",
        ]
    return out.finish([record], ok=True, columns=columns, rows=[row])


def _change(before: list[int], after: list[int]) -> str:
    old, new = ("x".join(map(str, size)) for size in (before, after))
    return old if old == new else f"{old} to {new}"
