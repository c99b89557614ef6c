"""fp32 ONNX files and what becomes of them in fewer bits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.reference import forward
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.recipes import Recipe

OPTIONS = {
    "plain": ({}, ExportOptions()),
    "pixels in, NCHW": ({}, ExportOptions(layout="nchw", include_preprocessing=True)),
    "gated, rms_norm, mean": (
        {"ffn_type": "swiglu", "normalization_type": "rms_norm", "pooling": "mean"},
        ExportOptions(batch=2),
    ),
    "layer scale, registers, probe": (
        {"layer_scale": True, "qk_norm": True, "register_tokens": 2, "pooling": "map", "class_token": False},
        ExportOptions(),
    ),
    "no qkv bias, norms behind": ({"qkv_bias": False, "normalization_position": "post"}, ExportOptions(opset=17)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """An fp32 file, images as it takes them, and what the definition answers."""

    source: Artifact
    images: NDArray[Any]
    expected: NDArray[np.float64]


def fp32_case(name: str, folder: Path) -> Case:
    """The file of one of `OPTIONS`, written to a folder."""
    changes, options = OPTIONS[name]
    checkpoint = trained(**changes)
    taken = pixels(checkpoint, 16)
    source = exported(OnnxExporter(), checkpoint, folder, options)
    normalized = checkpoint.preprocess.normalize(taken)
    return Case(source, taken if options.include_preprocessing else normalized, forward(checkpoint, normalized))


def run(path: Path, source: Artifact, images: NDArray[Any], outputs: list[str] | None = None) -> list[NDArray[Any]]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    engine = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    given = images.transpose(0, 3, 1, 2) if source.input.layout == "nchw" else images
    size = source.input.batch or len(given)
    rounds = [engine.run(outputs, {"images": given[i : i + size]}) for i in range(0, len(given), size)]
    return [np.concatenate(parts) for parts in zip(*rounds, strict=True)]


def made(case: Case, recipe: Recipe, folder: Path, **changes: Any) -> tuple[Artifact, onnx.ModelProto]:
    folder.mkdir(exist_ok=True)
    target = dataclasses.replace(case.source, directory=folder, precision=recipe.precision)
    images = Calibration(case.images, (), 0, "tests") if recipe.needs_calibration else None
    quantizer = OnnxQuantizer(**changes)
    return quantizer.write(case.source, target, recipe, images), onnx.load(str(target.model_path))


def noise_db(outputs: NDArray[Any], expected: NDArray[np.float64]) -> float:
    assert outputs.shape == expected.shape and np.isfinite(outputs).all()
    return float(10 * np.log10(np.square(expected).mean() / np.square(outputs - expected).mean()))


def arrays(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {initializer.name: numpy_helper.to_array(initializer) for initializer in model.graph.initializer}


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)
