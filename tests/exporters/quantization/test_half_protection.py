"""Files in 16-bit floats of models whose activations these do not hold, in three engines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.layers import set_array
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.float16_kernels import fits_half
from vit_deploy.exporters.quantization.half_protection import notes_on_protection
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.exporters.quantization.recipes import quantizable
from vit_deploy.verification.tolerances import DEFAULTS

FP16 = ONNX_RECIPES["fp16"]
QUERY, KEY, VALUE, OUT = (f"block_1.attention.{role}.kernel" for role in ("query", "key", "value", "out"))
UP, DOWN, HEAD = "block_0.ffn.up.kernel", "block_0.ffn.down.kernel", "head.kernel"

# What is multiplied and what is divided; whether the file then has 16 bits throughout, or what stays in float32.
PLANTED: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...], frozenset[str]]] = {
    "scores": ("gelu", (QUERY,), (), frozenset({"block_1.attention.products"})),
    "query against key": ("gelu", (QUERY,), (KEY,), frozenset()),
    "key against query": ("gelu", (KEY,), (QUERY,), frozenset()),
    "value against out": ("gelu", (VALUE,), (OUT,), frozenset()),
    "relu mlp": ("relu", (UP,), (DOWN,), frozenset()),
    "gelu mlp": ("gelu", (UP,), (DOWN,), frozenset({"block_0.ffn.up", "block_0.ffn.down"})),
    "residual stream": ("gelu", (DOWN,), (), frozenset({"block_0.ffn.down"})),
    "logits": ("gelu", (HEAD,), (), frozenset({"head"})),
}


@dataclasses.dataclass(frozen=True)
class Plain:
    """A model as it is and its fp32 file."""

    checkpoint: Checkpoint
    artifact: Any
    images: Any


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    found = {}
    for activation in ("gelu", "relu"):
        checkpoint = trained(activation=activation)
        artifact = exported(OnnxExporter(), checkpoint, tmp_path_factory.mktemp(activation), ExportOptions())
        found[activation] = Plain(checkpoint, artifact, checkpoint.preprocess.normalize(pixels(checkpoint, 8)))
    return found


def planted(model: Plain, case: str, factor: float, folder: Path) -> tuple[Checkpoint, Any]:
    """The model with a factor at a place, and its fp32 file."""
    _, multiplied, divided, _ = PLANTED[case]
    weights = dict(model.checkpoint.weights)
    for names, by in ((multiplied, factor), (divided, 1 / factor)):
        for name in names:
            for part in (name, name.replace("kernel", "bias")) if name not in (DOWN, OUT) or by > 1 else (name,):
                weights[part] = (weights[part] * np.float64(by)).astype(np.float32)
    graph = onnx.load(str(model.artifact.model_path))
    for name, values in weights.items():
        if values is not model.checkpoint.weights[name]:
            set_array(graph.graph, name, values)
    folder.mkdir()
    source = dataclasses.replace(model.artifact, directory=folder)
    onnx.save(graph, str(source.model_path))
    return dataclasses.replace(model.checkpoint, weights=weights), source


def halved(source: Any, images: Any, folder: Path, **changes: Any) -> Any:
    folder.mkdir()
    recipe = dataclasses.replace(FP16, **changes)
    target = dataclasses.replace(source, directory=folder, precision="fp16", options={"recipe": recipe.to_dict()})
    return OnnxQuantizer().write(source, target, recipe, Calibration(images, (), 0, "tests"))


def in_onnxruntime(artifact: Any, images: Any) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    engine = onnxruntime.InferenceSession(str(artifact.model_path), settings, providers=["CPUExecutionProvider"])
    return engine.run(None, {"images": images})[0]


def in_openvino(artifact: Any, images: Any) -> Any:
    pytest.importorskip("openvino")
    from vit_deploy.runtimes.openvino import OpenVINO

    with OpenVINO().open(artifact) as session:
        return session.infer(images)


def assert_near(outputs: Any, expected: Any) -> None:
    assert np.isfinite(outputs).all()
    noise_db = 10 * np.log10(np.square(expected).mean() / np.square(outputs - expected).mean())
    assert noise_db > DEFAULTS["fp16"].snr_db


@pytest.mark.parametrize("factor", [1e4, 1e6, 1e7])
@pytest.mark.parametrize("case", PLANTED)
def test_a_file_in_16_bits_is_right_whatever_its_activations_reach(case, factor, plain, tmp_path):
    activation, *_, islands = PLANTED[case]
    model = plain[activation]
    checkpoint, source = planted(model, case, factor, tmp_path / "fp32")
    expected = forward(checkpoint, model.images)
    target = halved(source, model.images, tmp_path / "fp16")
    for run in (in_onnxruntime, in_openvino) if factor == 1e6 else (in_onnxruntime,):
        assert_near(run(target, model.images), expected)
    recorded = target.options["recipe"].get("protected", {"float32": {}})
    if factor >= 1e6:
        assert recorded["float32"].keys() == islands
        assert bool(recorded.get("rescaled")) is (not islands or case == "scores")
        assert all(name in "\n".join(notes_on_protection(target)) for name in islands)
    for weight in onnx.load(str(target.model_path)).graph.initializer:
        if weight.name.endswith(".kernel") and weight.data_type != onnx.TensorProto.FLOAT16:
            kept = weight.name.removesuffix(".kernel") in recorded["float32"]
            assert kept or not fits_half(onnx.numpy_helper.to_array(weight))


def test_a_tame_model_is_written_byte_by_byte_as_without_the_measurement(plain, tmp_path):
    model = plain["gelu"]
    guarded = halved(model.artifact, model.images, tmp_path / "guarded")
    (tmp_path / "plain").mkdir()
    target = dataclasses.replace(guarded, directory=tmp_path / "plain")
    OnnxQuantizer().write(model.artifact, target, FP16, None)
    assert guarded.model_path.read_bytes() == target.model_path.read_bytes()
    assert "protected" not in guarded.options["recipe"] and notes_on_protection(guarded) == []


def test_products_of_an_attention_are_kept_in_float32_by_their_name_with_all_that_is_moved_to_them(plain, tmp_path):
    model = plain["gelu"]
    name = "block_1.attention.products"
    assert name in quantizable(FP16, model.checkpoint.config)
    target = halved(model.artifact, model.images, tmp_path / "fp16", keep_float=(name,))
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(target.model_path))).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    kinds = {
        block: {
            types[node.output[0]]
            for node in graph.node
            if node.name.startswith(f"{block}.attention.MatMul") and node.op_type == "MatMul"
        }
        for block in ("block_0", "block_1")
    }
    assert kinds == {"block_0": {onnx.TensorProto.FLOAT16}, "block_1": {onnx.TensorProto.FLOAT}}


def test_a_kept_head_gives_float32_that_was_never_rounded(plain, tmp_path):
    model = plain["gelu"]
    checkpoint, source = planted(model, "logits", 1e6, tmp_path / "fp32")
    target = halved(source, model.images, tmp_path / "fp16", keep_float=("head",))
    graph = onnx.load(str(target.model_path)).graph
    (last,) = [node for node in graph.node if "logits" in node.output]
    assert last.op_type in ("Gemm", "MatMul", "Add")
    assert_near(in_onnxruntime(target, model.images), forward(checkpoint, model.images))


def test_an_output_of_16_bits_that_cannot_hold_the_logits_is_refused_with_its_place(plain, tmp_path):
    model = plain["gelu"]
    _, source = planted(model, "logits", 1e6, tmp_path / "fp32")
    with pytest.raises(
        ConfigError, match=r"the output logits reaches .*e\+0\d, in the Gemm of head, .* 65504"
    ) as error:
        halved(source, model.images, tmp_path / "fp16", half_io=True)
    assert "leave --half-io out" in error.value.fix


def test_both_formats_are_proven_and_told_and_a_budget_can_be_met(tmp_path):
    checkpoint = trained(image_size=(8, 8), num_layers=1, activation="relu")
    weights = dict(checkpoint.weights)
    for name, factor in (("block_0.attention.query", 1e5), ("block_0.ffn.up", 1e6), ("head", 1e5)):
        for part in ("kernel", "bias"):
            weights[f"{name}.{part}"] = weights[f"{name}.{part}"] * np.float32(factor)
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    jobs, _ = plan(["onnx", "tflite"], ["fp16"])
    made = export(checkpoint, tmp_path, jobs, QuantizeOptions(measure_speed=False, min_cosine=0.99999))
    assert [result.artifact.name for result in made.results if result.published] == ["onnx-fp16", "tflite-fp16"]
    told = "\n".join(made.notes)
    assert "onnx-fp16: " in told and "head" in told and "compute in float32, for values there reach" in told
    recorded = json.loads((tmp_path / "onnx-fp16" / "artifact.json").read_text())["options"]["recipe"]["protected"]
    assert {"block_0.attention.products", "head"} <= recorded["float32"].keys()
