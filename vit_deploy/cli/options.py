"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.core.options import Option, panel
from vit_deploy.core.options.parsing import size, size_or_dynamic


@panel("Output")
@dataclass(frozen=True)
class OutputOptions:
    """What a command prints, and where.

    Args:
        json: whether the result is a JSON document on stdout.
        verbose: whether engines may say what they like.
        quiet: whether progress and notes are left out.
    """

    json: Annotated[bool, Option(help="Print one JSON document on stdout and nothing else there.")] = False
    verbose: Annotated[bool, Option(names=("-v", "--verbose"), help="Show what the engines say.")] = False
    quiet: Annotated[bool, Option(names=("-q", "--quiet"), help="No progress; only results and errors.")] = False


Force = Annotated[bool, Option(help="Replace what is there.")]
KeepFailed = Annotated[bool, Option(help="Publish what fails its proof as <name>.failed.")]
KNOWN_SCALES = "vit_deploy.core.config:SCALE_CONFIGS"
KNOWN_FORMATS = "vit_deploy.exporters.plan:known_formats"
KNOWN_PRECISIONS = "vit_deploy.exporters.plan:known_precisions"
# For help.
QUANTIZED = (
    "fp16, int8, int8-static, int4; ONNX and TFLite also int16x8, TFLite int8-full, ONNX for CUDA bf16. Repeat, or "
    "join by commas."
)
Artifacts = Annotated[
    list[Path],
    typer.Argument(metavar="ARTIFACT…", help="Artifacts, folders of artifacts, .keras files.", show_default=False),
]
CheckpointFile = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A file, a folder, or a name as timm:NAME.TAG.",
        show_default=False,
    ),
]
OutputFile = Annotated[
    Path, Option(names=("--output", "-o"), metavar="FILE", help="What to write, as FILE.keras or FILE.safetensors.")
]
Dialect = Annotated[
    str | None,
    Option(values="vit_deploy.checkpoints:DIALECTS", help="Write a folder for this program, instead of a file: timm."),
]
ImageSize = Annotated[
    tuple[int, int] | None,
    Option(metavar="N|HxW", help="Pixels, as 224 or 384x512 (height x width).", show_default="224", parse=size),
]
ImageSizes = Annotated[
    tuple[tuple[int, int] | str, ...] | None,
    Option(
        metavar="N|HxW|dynamic",
        help="Pixels, as 224 or 384x512; repeat for TFLite, or join by commas; dynamic: any, for ONNX and SavedModel.",
        show_default="224",
        commas=True,
        parse=size_or_dynamic,
        repeats=True,
    ),
]
PatchSize = Annotated[
    tuple[int, int] | None,
    Option(metavar="N|HxW", help="Pixels, as 16 or 8x16 (height x width).", show_default="16", parse=size),
]
NumClasses = Annotated[int | None, Option(help="Outputs of the head.", show_default="1000")]
Seed = Annotated[int | None, Option(min=0, help="Of random weights.", show_default="0")]
Like = Annotated[
    str | None,
    Option(
        metavar="CONVENTION",
        help="Whose way of resampling a checkpoint: timm, huggingface, google, dinov2, dinov2-registers, siglip2, pe.",
        show_default="the checkpoint's own family, else timm",
        values="vit_deploy.core.resize:Convention",
    ),
]


def split_at_commas(value: list[str] | None) -> list[str] | None:
    """The values of an option that may be repeated, or joined by commas, or both; each once.

    A path that is there is one value, whatever it is called.

    Raises:
        typer.BadParameter: nothing beside a comma.
    """
    if value is None:
        return None
    parts = [part.strip() for text in value for part in ([text] if Path(text).exists() else text.split(","))]
    if not all(parts):
        raise typer.BadParameter(f"{', '.join(map(repr, value))}; expected values as a or a,b")
    return [*dict.fromkeys(parts)]
