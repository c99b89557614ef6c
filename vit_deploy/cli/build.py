"""`vit-deploy build`: a Keras ViT of a named scale, with seeded random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.completion import completion
from vit_deploy.cli.options import KNOWN_SCALES, Force, ImageSize, NumClasses, OutputOptions, PatchSize, Seed
from vit_deploy.cli.signature import command
from vit_deploy.core.options import ArchitectureOptions, Option


@command
def build(
    scale: Annotated[
        str,
        typer.Argument(
            metavar="SCALE",
            help="pico, tiny, small, base, large or huge.",
            show_default=False,
            autocompletion=completion(KNOWN_SCALES),
        ),
    ],
    output: Annotated[Path, Option(names=("--output", "-o"), metavar="FILE.keras", help="What to write.")],
    image_size: ImageSize = None,
    patch_size: PatchSize = None,
    num_classes: NumClasses = None,
    seed: Seed = None,
    force: Force = False,
    *,
    architecture: ArchitectureOptions,
    printing: OutputOptions,
) -> int:
    """Write a ViT with seeded random weights, the same on every machine."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    out = Output("build", printing)
    with out.progress() as progress:
        built = api.build(
            scale,
            output,
            image_size=image_size or 224,
            patch_size=patch_size or 16,
            num_classes=num_classes,
            seed=seed or 0,
            architecture=architecture,
            force=force,
            progress=progress,
        )
    file = built.result
    columns = ranked((paths("checkpoint"), "size", "parameters", "seed"), ["parameters", "size", "seed"])
    row = (str(file.path), megabytes(file.bytes), f"{file.checkpoint.num_parameters / 1e6:.2f} M", f"{seed or 0}")
    return out.show(built, columns=columns, rows=[row])
