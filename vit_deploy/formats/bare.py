"""Model files of anybody as artifacts: what they take and give, read from the file and matched to a known model.

A bare file has no manifest and no golden data. Its layout, its numbers and its precision are read from it; what the
file leaves open is taken from the model that it is compared with, and is told as an assumption.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_deploy.core.artifact import ESSENTIAL, Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Format
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import from_essentials
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import ArtifactError, ConfigError
from vit_deploy.formats.bare_precision import precision_of
from vit_deploy.formats.detect import format_of
from vit_deploy.formats.graph import Graph, TensorInfo, read_graph

LAYOUTS = {"nhwc": (1, 2, 3), "nchw": (2, 3, 1)}  # where height, width and channels are
SIDES = ("height", "width", "channel")  # what a dynamic side's name may say of it
NORMALIZED, PIXELS = "normalized", "pixels"
VALUES = (NORMALIZED, PIXELS)
FLOATS = ("float32", "float16")
USUAL_CHANNELS = (1, 3, 4)
SLACK = 0.05  # of its width, that a quantized input's range may lack at an end of the pixels'


@dataclass(frozen=True)
class Stated:
    """What is said of a bare file, where it does not say it itself.

    Args:
        layout: the layout of its input, "nhwc" or "nchw"; None reads it from the shape.
        values: that its input takes, "normalized" or "pixels" from 0 to 255; None follows from its numbers.
        output: name of the output that counts; None takes the only one.

    Raises:
        ConfigError: names that are unknown.
    """

    layout: str | None = None
    values: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if self.layout is not None and self.layout not in LAYOUTS:
            raise ConfigError(f"layout is {self.layout!r}", fix=f"choose one of {', '.join(LAYOUTS)}")
        if self.values is not None and self.values not in VALUES:
            raise ConfigError(f"values is {self.values!r}", fix=f"choose one of {', '.join(VALUES)}")

    @property
    def options(self) -> list[str]:
        """The options of the command line that say something."""
        return [f"--{name}" for name, value in vars(self).items() if value is not None]


@dataclass(frozen=True)
class Assumption:
    """What was taken for true of a model, and why."""

    field: str
    value: str
    why: str


@dataclass(frozen=True)
class Known:
    """The model that a bare file should be.

    Args:
        name: the name of the model, for messages.
        config: its function.
        preprocess: the preprocessing from image to input.
        labels: the labels of its classes.
    """

    name: str
    config: ViTConfig
    preprocess: Preprocess
    labels: tuple[str, ...] = ()


def bare_format(path: Path) -> str | None:
    """The format of a model file outside of any artifact; None of everything else, which includes artifacts."""
    format = format_of(path)
    return None if format is None or format.no_essentials else format.name


def read_bare(path: Path, known: Known, stated: Stated = Stated()) -> tuple[Artifact, tuple[Assumption, ...]]:
    """A bare file as the artifact of a known model, and what was assumed of it.

    Args:
        path: the path of a file for which `bare_format` has a format.
        known: the model that it should be.
        stated: what is said of it.

    Raises:
        ArtifactError: no model file, a damaged one, or one that is not of this model: other sizes, other outputs.
        ConfigError: what can be read in several ways, and nothing is said of it.
    """
    format, graph = _graph(path)
    if own := _own(path, graph):
        if stated.options:
            raise ConfigError(f"{path} says itself what it takes", fix=f"leave {', '.join(stated.options)} out")
        return own, ()
    given = _only_input(path, graph)
    layout, why = _layout(path, given, known, stated)
    spec, values = _input_spec(path, format, given, layout, known.preprocess, stated)
    output = _output(path, graph, known, stated)
    precision, reason = precision_of(path, format.name, graph, spec)
    artifact = Artifact(
        directory=path.parent,
        format=format.name,
        precision=precision,
        config=known.config,
        preprocess=known.preprocess,
        labels=known.labels,
        input=spec,
        weights_digest="",
        model=path.name,
        output_tensor=output.name,
        is_bare=True,
    )
    assumed = (
        Assumption("layout", layout, why),
        values,
        Assumption("output", output.name, f"{known.config.output_name} are expected, and it is {output}"),
        Assumption("precision", precision, reason),
    )
    return artifact, assumed


def read_to_time(path: Path) -> Artifact:
    """A bare file as an artifact that can be timed; of anybody else's config only the size of the images counts.

    Args:
        path: the path of a file for which `bare_format` has a format.

    Raises:
        ArtifactError: no model file, a damaged one, or one whose input is no image of a fixed size.
        ConfigError: its layout can be read in several ways.
    """
    format, graph = _graph(path)
    if own := _own(path, graph):
        return own
    given = _only_input(path, graph)
    sides = tuple(side if isinstance(side, int) else None for side in given.shape or ())
    found = {name: [sides[place] for place in places] for name, places in LAYOUTS.items()}
    if None in sides[1:]:
        raise ArtifactError(
            f"{path} takes {given}: images of no fixed size", fix="export it for one size, with only the batch open"
        )
    fitting = [name for name, (*_, channels) in found.items() if channels in USUAL_CHANNELS]
    if len(fitting) != 1:
        raise ConfigError(
            f"{path} takes {given}, which {'may be of any layout' if fitting else 'is no image'}",
            fix="give a file whose images have 1, 3 or 4 channels, and more pixels than that",
        )
    height, width, channels = (int(side or 0) for side in found[fitting[0]])
    # One patch, so that an image of any size has a whole number of them.
    config = ViTConfig.from_scale("pico", image_size=(height, width), patch_size=(height, width), channels=channels)
    known = Known(str(path), config, Preprocess.for_channels(channels))
    values = PIXELS if given.dtype == "uint8" and format.input_quantization is None else None
    spec, _ = _input_spec(path, format, given, fitting[0], known.preprocess, Stated(values=values), strict=False)
    precision, _ = precision_of(path, format.name, graph, spec)
    output = graph.outputs[0].name if graph.outputs else ""
    return Artifact(
        directory=path.parent,
        format=format.name,
        precision=precision,
        config=config,
        preprocess=known.preprocess,
        labels=(),
        input=spec,
        weights_digest="",
        model=path.name,
        output_tensor=output,
        is_bare=True,
    )


def _own(path: Path, graph: Graph) -> Artifact | None:
    """A file of ours that has left its artifact, which says all about it itself; None of another's."""
    if not any(key.startswith(ESSENTIAL) for key in graph.metadata):
        return None
    return dataclasses.replace(from_essentials(path, graph.metadata), is_bare=True)


def _graph(path: Path) -> tuple[Format, Graph]:
    name = bare_format(path)
    if name is None:
        *nouns, last = (record.noun for record in FORMATS.of_artifacts().values() if not record.no_essentials)
        raise ArtifactError(f"{path} is no model file", fix=f"give {', '.join(nouns)} or {last}")
    format = FORMATS[name]
    graph = read_graph(path, format)
    if format.refuse_bare is not None:
        format.refuse_bare.load()(path, graph)
    return format, graph


def _only_input(path: Path, graph: Graph) -> TensorInfo:
    if len(graph.inputs) != 1:
        raise ArtifactError(
            f"{path} has {len(graph.inputs)} inputs: {'; '.join(map(str, graph.inputs))}; expected images alone",
            fix="export the model with its images as the only input",
        )
    (given,) = graph.inputs
    if given.shape is None or len(given.shape) != 4:
        raise ArtifactError(
            f"{path} takes {given}; expected images (batch, height, width, channels) or "
            "(batch, channels, height, width)",
            fix="export the model with a batch of images as its input",
        )
    return given


def _layout(path: Path, given: TensorInfo, known: Known, stated: Stated) -> tuple[str, str]:
    """The layout of the input, and why it is that one."""
    shape, config = given.shape or (), known.config
    expected = (*config.image_size, config.channels)
    fitting = [
        name
        for name, places in LAYOUTS.items()
        if all(
            not isinstance(shape[place], int) or shape[place] == side
            for place, side in zip(places, expected, strict=True)
        )
    ]
    height, width, channels = expected
    if not fitting or (stated.layout and stated.layout not in fitting):
        asked = f" in {stated.layout}" if stated.layout else ""
        raise ArtifactError(
            f"{path} takes {given}; the images of {known.name} are {height}x{width} (height x width) of {channels} "
            f"channels{asked}",
            fix="give the checkpoint that it was made from, or one that vit-deploy resize has brought to its size",
        )
    if stated.layout:
        return stated.layout, "--layout says so"
    named = [name for name in fitting if _says(shape, LAYOUTS[name])]
    if len(named) == 1:
        return named[0], f"the sides of {given} are called so"
    if len(fitting) > 1:
        raise ConfigError(
            f"{path} takes {given}, and images of {height}x{width} of {channels} channels fit that in both layouts",
            fix=f"say which it is with --layout {' or --layout '.join(LAYOUTS)}",
        )
    return fitting[0], f"{height}x{width} images of {channels} channels fit {given} in no other"


def _says(shape: Sequence[int | str | None], places: Sequence[int]) -> bool:
    return any(
        isinstance(shape[place], str) and word in str(shape[place]).lower()
        for place, word in zip(places, SIDES, strict=True)
    )


def _input_spec(
    path: Path,
    format: Format,
    given: TensorInfo,
    layout: str,
    preprocess: Preprocess,
    stated: Stated,
    *,
    strict: bool = True,
) -> tuple[InputSpec, Assumption]:
    shape = tuple(side if isinstance(side, int) else None for side in given.shape or ())
    quantized = None if format.input_quantization is None else format.input_quantization.load()(path)
    if given.dtype not in FLOATS and not (given.dtype == "uint8" or (given.dtype == "int8" and quantized)):
        raise ArtifactError(
            f"{path} takes {given}; images are float32, float16 or uint8, and int8 where a TFLite file has its scale",
            fix="export the model with an input of one of these types",
        )
    values, why = _values(path, given, quantized, preprocess, stated, strict=strict)
    scale, zero_point = quantized or (None, None)
    if values == PIXELS and given.dtype == "uint8":
        scale, zero_point = None, None
    spec = InputSpec(
        shape=shape,
        dtype=given.dtype,
        layout=layout,
        scale=scale,
        zero_point=zero_point,
        preprocessing_inside=values == PIXELS,
        name=given.name,
    )
    words = values
    if values == NORMALIZED:
        words += f" by mean {list(preprocess.mean)} and std {list(preprocess.std)}"
    return spec, Assumption("input", words, why)


def _values(
    path: Path,
    given: TensorInfo,
    quantized: tuple[float, int] | None,
    preprocess: Preprocess,
    stated: Stated,
    *,
    strict: bool,
) -> tuple[str, str]:
    """What the numbers of an input stand for, and why."""
    if given.dtype in FLOATS:
        said = "--values says so" if stated.values else f"it is {given.dtype}, and --values does not say otherwise"
        return stated.values or NORMALIZED, said
    if quantized is None:
        if stated.values == NORMALIZED:
            raise ConfigError(f"{path} takes {given}, which holds no normalized values", fix="leave --values out")
        return PIXELS, f"it is {given.dtype} without a scale"
    scale, zero_point = quantized
    limits = np.iinfo(given.dtype)
    low, high = scale * (limits.min - zero_point), scale * (limits.max - zero_point)
    means = f"its {given.dtype} stand for {low:.4g} to {high:.4g}"
    if stated.values:
        return stated.values, "--values says so"
    if abs(low) < 0.5 and abs(high - 255) < 0.5:
        return PIXELS, means
    ends = [(0 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    tops = [(1 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    slack = SLACK * (max(tops) - min(ends))
    if strict and (low > min(ends) + slack or high < max(tops) - slack):
        raise ConfigError(
            f"{path} takes {given}: {means}, which are neither pixels from 0 to 255 nor the normalized ones of the "
            f"checkpoint, from {min(ends):.4g} to {max(tops):.4g}",
            fix=f"say what it takes with --values {' or --values '.join(VALUES)}",
        )
    return NORMALIZED, means


def _output(path: Path, graph: Graph, known: Known, stated: Stated) -> TensorInfo:
    by_name: Mapping[str, TensorInfo] = {output.name: output for output in graph.outputs}
    listed = "; ".join(map(str, graph.outputs)) or "none"
    if stated.output is not None and stated.output not in by_name:
        raise ConfigError(f"{path} has no output {stated.output}; it has {listed}", fix="give --output one of these")
    if stated.output is None and len(by_name) != 1:
        raise ConfigError(f"{path} has {len(by_name)} outputs: {listed}", fix="say which one counts with --output NAME")
    found = by_name[stated.output or next(iter(by_name))]
    expected = known.config.output_shape
    if found.shape is not None and (
        len(found.shape) != 1 + len(expected)
        or any(isinstance(side, int) and side != own for side, own in zip(found.shape[1:], expected, strict=True))
    ):
        kind = "classes" if known.config.include_top else "features"
        raise ArtifactError(
            f"{path} gives {found}; {known.name} gives {expected} {kind} an image",
            fix="give the checkpoint that it was made from",
        )
    return found
