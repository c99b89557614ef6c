"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

MOST = 65536
MOST_THREADS = 1024  # more than any machine has; an engine would start them all

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what the engines say.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="No progress; only results and errors.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
KeepFailed = Annotated[bool, typer.Option("--keep-failed", help="Publish what fails its proof as <name>.failed.")]
# For help.
QUANTIZED = (
    "fp16, int8, int8-static, int4; TFLite also int8-full, int16x8; ONNX for CUDA also bf16. Repeat, or join by commas."
)
Artifacts = Annotated[
    list[Path],
    typer.Argument(metavar="ARTIFACT…", help="Bundles, folders of bundles, .keras files.", show_default=False),
]
Runtime = Annotated[str | None, typer.Option(help="Engine to run in.", show_default="the format's own")]
Provider = Annotated[
    str | None, typer.Option(help="What executes the graph: cpu, cuda, …", show_default="the engine's own")
]
Device = Annotated[int, typer.Option(min=0, help="Which GPU, of those that are visible.")]
CudaGraph = Annotated[
    bool, typer.Option("--cuda-graph", help="Let a GPU record the kernels of a call once, and replay them.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, max=MOST_THREADS, help="For the work in one call.", show_default="all cores")
]
CheckpointFile = Annotated[Path, typer.Argument(help="A checkpoint file or folder.", show_default=False)]
OutputFile = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FILE.keras|FILE.safetensors", help="What to write.", show_default=False),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.json",
        help="What the checkpoint does not say, as an object: fields of the config as inspect --json shows them "
        '(image_size, num_heads, pooling, …), labels, and preprocess {"mean", "std", "resize", …}.',
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="R,G,B",
        help="Of pixels in 0..1, in place of a checkpoint's own; one for all channels.",
        show_default="recorded",
    ),
]
Std = Annotated[
    str | None, typer.Option("--std", metavar="R,G,B", help="Likewise, what is divided by.", show_default="recorded")
]
LabelsFile = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Names of a checkpoint's classes, one a line, or as JSON a list or an id2label.",
        show_default="recorded",
    ),
]
NoHead = Annotated[bool, typer.Option("--no-head", help="Read a checkpoint without its head: it gives features.")]
NumHeads = Annotated[
    int | None, typer.Option("--num-heads", min=1, help="Attention heads, where the checkpoint does not say it.")
]
Epsilon = Annotated[float | None, typer.Option(help="Of the norms, where the checkpoint does not say it.")]
ActivationName = Annotated[
    str | None,
    typer.Option("--activation", metavar="NAME", help="gelu, gelu_tanh, quick_gelu, …, where it does not say it."),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size", metavar="N|HxW", help="Pixels, as 224 or 384x512 (height x width).", show_default="224"
    ),
]
PatchSize = Annotated[
    str | None,
    typer.Option("--patch-size", metavar="N|HxW", help="Pixels, as 16 or 8x16 (height x width).", show_default="16"),
]
NumClasses = Annotated[int | None, typer.Option("--num-classes", help="Outputs of the head.", show_default="1000")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Of random weights.", show_default="0")]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="CONVENTION",
        help="Whose way of resampling a checkpoint: timm, huggingface, google, dinov2 or dinov2-registers.",
        show_default="the checkpoint's own family, else timm",
    ),
]


def stated_fields(
    config: Path | None,
    num_heads: int | None,
    epsilon: float | None,
    activation: str | None,
    mean: str | None,
    std: str | None,
    labels: Path | None,
    no_head: bool,
) -> dict[str, Any]:
    """What the command line states of a checkpoint, as `checkpoints.load` takes it; an option wins over the file.

    Raises:
        CheckpointError: a config file or a file of labels that cannot be read.
        typer.BadParameter: a mean or a standard deviation that is no number.
    """
    from vit_deploy.checkpoints import HEAD, LABELS, PREPROCESS, read_config, read_labels

    options = {"num_heads": num_heads, "epsilon": epsilon, "activation": activation}
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    stated = (read_config(config) if config else {}) | given
    pixels = {
        name: parse_numbers(text, f"--{name}") for name, text in (("mean", mean), ("std", std)) if text is not None
    }
    if pixels:
        said = stated.get(PREPROCESS, {})
        stated[PREPROCESS] = {**said, **pixels} if isinstance(said, Mapping) else said
    if labels is not None:
        stated[LABELS] = read_labels(labels)
    return stated | ({HEAD: False} if no_head else {})


def parse_numbers(text: str, option: str) -> list[float]:
    """Finite numbers from "0.5" or "0.485,0.456,0.406".

    Raises:
        typer.BadParameter: anything else.
    """
    try:
        values = [float(each) for each in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise typer.BadParameter(f"{option} is {text!r}; expected numbers as 0.5 or 0.485,0.456,0.406")
    return values


def parse_size(text: str, option: str) -> tuple[int, int]:
    """Pixels as (height, width) from "224" or "384x512".

    Raises:
        typer.BadParameter: anything else.
    """
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(
        side.isascii() and side.isdigit() and len(side) < 10 and int(side) for side in sides
    ):
        raise typer.BadParameter(f"{option} is {text!r}; expected pixels as 224 or 384x512 (height x width)")
    return (int(sides[0]), int(sides[-1]))


def parse_counts(text: str, option: str, most: int = MOST) -> list[int]:
    """Positive whole numbers from "1" or "1,2,8", in that order and each once.

    Raises:
        typer.BadParameter: anything else, or one above `most`.
    """
    counts = [each.strip().lstrip("0") for each in text.split(",")]
    if not all(each.isascii() and each.isdigit() for each in counts):
        raise typer.BadParameter(f"{option} is {text!r}; expected positive numbers as 1 or 1,2,8")
    if any(len(each) > len(str(most)) or int(each) > most for each in counts):  # int() refuses thousands of digits
        raise typer.BadParameter(f"{option} is {text!r}; expected numbers up to {most}")
    return [*dict.fromkeys(map(int, counts))]


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


def parse_percent(text: str, option: str) -> float:
    """A fraction from "5%" or "5", which is the same.

    Raises:
        typer.BadParameter: anything else, or less than nothing.
    """
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise typer.BadParameter(f"{option} is {text!r}; expected a percentage as 5% or 5")
    return value


def parse_time(text: str, option: str) -> float:
    """Milliseconds from "5ms" or "0.5s".

    Raises:
        typer.BadParameter: anything else.
    """
    from vit_deploy.performance.plan import milliseconds_in

    try:
        return milliseconds_in(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} is {error}") from error
