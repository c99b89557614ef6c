"""A few lines of Python that run an artifact in its plain engine, with its recorded preprocessing.

The lines need the engine, NumPy and Pillow, for a TensorRT plan cuda-python too, and nothing of this package. They
are for images of 8 bits a channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.images import MODES
from vit_deploy.errors import ArtifactError

SHOWN = 5  # classes


@dataclass(frozen=True)
class Lines:
    """The lines of a program that are those of a format.

    Args:
        imports: the imports of its engine.
        run: lines from `images` to `output`, the first image's; where outputs are by name, by way of `outputs`, of all
            images.
        labels: an expression of the labels, read from the artifact: a thousand of them are no snippet.
        labels_by: the module of the standard library that this expression needs.
        standard: other modules of the standard library.
        least_batch: images a call, where the file's own batch is open.
    """

    imports: Callable[[Artifact], Iterable[str]]
    run: Callable[[Artifact], Iterable[str]]
    labels: Callable[[Artifact], str]
    labels_by: str = "json"
    standard: Callable[[Artifact], tuple[str, ...]] = lambda artifact: ()
    least_batch: Callable[[Artifact], int] = lambda artifact: 1


def snippet(artifact: Artifact) -> str:
    """A program that takes an image file as its first argument and prints the best classes, or shapes of outputs.

    Raises:
        ArtifactError: a format that only this package can run.
    """
    plugin = FORMATS[artifact.format].snippet if artifact.format in FORMATS else None
    if plugin is None:
        raise ArtifactError(
            f"{artifact.model_path} is a checkpoint, which no plain engine runs",
            fix="export it first, then ask for the snippet of the artifact",
        )
    if not artifact.input.name.isidentifier():  # it becomes code
        raise ArtifactError(f"{artifact.model_path} calls its input {artifact.input.name!r}", fix="export it again")
    lines: Lines = plugin.load()
    whole = [
        *(*_imports(artifact, lines), ""),
        *(*_image(artifact), *_images(artifact, lines.least_batch(artifact))),
        *(*lines.run(artifact), *_answer(artifact, lines)),
    ]
    return "\n".join(whole) + "\n"


def _imports(artifact: Artifact, lines: Lines) -> Iterator[str]:
    standard = {"sys", *lines.standard(artifact)}
    if artifact.labels and artifact.gives_classes:
        standard.add(lines.labels_by)
    yield from (f"import {name}" for name in sorted(standard))
    yield ""
    yield "import numpy as np"
    yield from lines.imports(artifact)
    yield "from PIL import Image, ImageOps"


def _image(artifact: Artifact) -> Iterator[str]:
    """Lines that end with `pixels` `(height, width, channels)`, 0..255 as float32."""
    preprocess, channels = artifact.preprocess, artifact.config.channels
    height, width = preprocess.input_size or artifact.config.image_size
    convert = f'.convert("{MODES[channels]}")' if channels in MODES else ""
    yield f"image = ImageOps.exif_transpose(Image.open(sys.argv[1])){convert}"
    size, change = f"({width}, {height})", f"Image.Resampling.{preprocess.interpolation.name})"
    if isinstance(preprocess.resize, tuple):
        size = f"({preprocess.resize[1]}, {preprocess.resize[0]})"
        if preprocess.keep_aspect:
            yield f"ratio = min(side / wanted for side, wanted in zip(image.size, {size}))"
            size = "[round(side / ratio) for side in image.size]"
    elif preprocess.resize is not None:
        size = f"[{preprocess.resize} * side // min(image.size) for side in image.size]"
    if preprocess.crop and preprocess.resize is not None:
        yield f"size = {size}  # (width, height)"
        yield f"left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)"
        change = f".resize(size, {change}.crop((left, top, left + {width}, top + {height}))"
    else:
        change = f".resize({size}, {change}"
    if channels in MODES:
        yield f"pixels = np.asarray(image{change}, np.float32).reshape({height}, {width}, {channels})"
    else:
        yield f"pixels = np.stack([np.asarray(band{change}, np.float32) for band in image.split()], axis=-1)"
    if preprocess.input_size:
        height, width = artifact.config.image_size
        yield f"pixels = pixels[:{height}, :{width}]  # what whole patches cover"


def _images(artifact: Artifact, least_batch: int) -> Iterator[str]:
    """Lines that end with `images`, as the file takes them."""
    spec, preprocess = artifact.input, artifact.preprocess
    dtype, image = spec.dtype, "image.transpose(2, 0, 1)" if spec.layout == "nchw" else "image"
    if spec.preprocessing_inside:
        yield "image = pixels"
    else:
        yield f"image = (pixels / 255 - {list(preprocess.mean)}) / {list(preprocess.std)}"
    if spec.scale is not None:
        least, most = (-128, 127) if dtype == "int8" else (0, 255)
        yield f"image = np.clip(np.rint(image / {spec.scale!r}) + {spec.zero_point or 0}, {least}, {most})"
    batch = spec.batch or least_batch
    times = "" if batch == 1 else f" * {batch}"
    yield f"images = np.array([{image}]{times}, np.{dtype})"


def _answer(artifact: Artifact, lines: Lines) -> Iterator[str]:
    if artifact.outputs:
        yield "for name, values in outputs.items():"
        yield "    print(name, values.shape)"
    elif not artifact.config.include_top:
        yield 'print("features of shape", output.shape)'
    if not artifact.gives_classes:
        return
    name = "index"
    if artifact.labels:
        yield f"labels = {lines.labels(artifact)}"
        name = "labels[index]"
    yield f"for index in np.argsort(-output)[:{SHOWN}]:"
    yield f'    print(f"{{output[index]:.6f}} {{{name}}}")'
