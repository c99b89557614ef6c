"""NHWC images as the input that a model file takes, and its outputs as float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.input_output import InputSpec
from vit_deploy.errors import DataError, EngineError
from vit_deploy.runtimes import Session

Array = NDArray[Any]


def checked_images(images: Array, artifact: Artifact) -> Array:
    """`images` as they are, if the model can take them.

    Raises:
        DataError: no images, of another size, or not of the dtype that the model's recorded input asks for.
    """
    config = artifact.config
    expected = (*config.image_size, config.channels)
    dtype = np.dtype(np.uint8 if artifact.input.preprocessing_inside else np.float32)
    channels = expected[2]
    fits = images.ndim == 4 and (
        images.shape[3] == channels if artifact.is_for_any_size else images.shape[1:] == expected
    )
    if not fits or not images.size or images.dtype != dtype:
        height, width = ("height", "width") if artifact.is_for_any_size else config.image_size
        kind = "uint8 pixels" if artifact.input.preprocessing_inside else "normalised float32 images"
        raise DataError(
            f"images are {images.dtype} of shape {images.shape}; "
            f"expected {kind} of shape (batch, {height}, {width}, {channels})",
            fix="resize and normalise the images as artifact.json says under preprocess",
        )
    found, patch = images.shape[1:3], config.patch_size
    if any(side % step for side, step in zip(found, patch, strict=True)):
        raise DataError(
            f"images are {found[0]}x{found[1]} pixels (height x width), which is no whole number of patches of "
            f"{patch[0]}x{patch[1]}",
            fix="resize or crop the images to multiples of the patch",
        )
    return images


def blank_images(artifact: Artifact, batch: int | None = None) -> Array:
    """Images of zeros, as many as one call of the model takes.

    Args:
        artifact: that takes them.
        batch: the batch where the model takes any number; None for one.
    """
    config, spec = artifact.config, artifact.input
    dtype = np.uint8 if spec.preprocessing_inside else np.float32
    return np.zeros((spec.batch or batch or 1, *config.image_size, config.channels), dtype)


def as_stored(images: Array, spec: InputSpec) -> Array:
    """Images `(batch, height, width, channels)` in the layout and the numbers of the file; a copy only where needed."""
    if spec.scale is not None:
        images = quantized(images, spec.scale, spec.zero_point or 0, np.dtype(spec.dtype))
    elif images.dtype != spec.dtype:
        images = images.astype(spec.dtype)
    if spec.layout == "nchw":
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def quantized(values: Array, scale: float, zero_point: int, dtype: np.dtype[Any]) -> Array:
    """Real values as the nearest stored ones: value / scale + zero_point, halves to even, clipped to the dtype."""
    limits = np.iinfo(dtype)
    stored = np.rint(values / np.float32(scale)) + zero_point
    result: Array = np.clip(stored, limits.min, limits.max).astype(dtype)
    return result


def dequantized(stored: Array, scale: float, zero_point: int) -> NDArray[np.float32]:
    """Stored values as real ones: scale * (stored - zero_point)."""
    return (stored.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def refuse_other_input(artifact: Artifact, name: str, shape: Sequence[object]) -> None:
    """Raise `EngineError` unless the file's input is the one that its manifest records.

    Args:
        artifact: whose manifest counts.
        name: the name of the input in the file.
        shape: the shape of the input in the file; whatever is no positive number is dynamic.
    """
    found = tuple(side if isinstance(side, int) and side > 0 else None for side in shape)
    spec = artifact.input
    if name != spec.name or found != spec.shape:
        raise EngineError(
            f"{artifact.model_path} takes {name} {found}; its manifest says {spec.name} {spec.shape}",
            fix="export the model again; the file is not the one that the artifact was made with",
        )


def missing_output(artifact: Artifact, found: Sequence[str]) -> EngineError:
    """What to raise when the file has no output of a recorded name."""
    missing = [name for name in artifact.output_names if name not in found] or [artifact.output_name]
    return EngineError(
        f"{artifact.model_path} has no output {', '.join(missing)}; it has {', '.join(found) or 'none'}",
        fix="export the model again; the file is not the one that the artifact was made with",
    )


def refuse_unplaced(session: Session, artifact: Artifact) -> None:
    """Raise `EngineError` if an engine that counts has given none of the operators to the session's provider."""
    counts = session.placement
    if counts and not counts.get(session.provider):
        where = ", ".join(f"{count} on {name}" for name, count in counts.items())
        raise EngineError(
            f"{session.provider} takes none of the {sum(counts.values())} operators of {artifact.model_path}: {where}",
            fix=f"run with --provider {next(iter(counts))}, or export the model in a precision that it takes",
        )
