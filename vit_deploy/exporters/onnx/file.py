"""ONNX files of any size, read and written by the quantizers."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from vit_deploy.errors import EngineError
from vit_deploy.exporters.onnx.write import EXTERNAL_LIMIT
from vit_deploy.formats.onnx.file import refuse_outside_data

SMALLEST_OUTSIDE = 1024  # bytes of a tensor, from which it is written beside the model


def read(path: Path) -> onnx.ModelProto:
    """A model with all its weights.

    Raises:
        EngineError: a damaged file, or one whose weights lie outside its folder.
    """
    refuse_outside_data(path)
    try:
        return onnx.load(str(path))
    except (DecodeError, ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise EngineError(f"onnx cannot read {path}: {error}", fix="export the model again") from error


def save(model: onnx.ModelProto, path: Path, *, external_limit: int = EXTERNAL_LIMIT) -> None:
    """Write a model; weights of `external_limit` bytes or more together go to `<path>.data` beside it.

    Raises:
        OSError: the disk is full.
    """
    if sum(len(weight.raw_data) for weight in model.graph.initializer) < external_limit:
        onnx.save_model(model, str(path))
        return
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
        size_threshold=SMALLEST_OUTSIDE,
    )
