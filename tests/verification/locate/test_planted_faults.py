"""Faults planted in exported files: each is caught, and found in the block and by the operator where it is.

Weights are changed in the files themselves: in ONNX initializers, in TFLite buffers, in a SavedModel's variables. A
norm's epsilon is an attribute in ONNX; TFLite and SavedModel share one constant among all norms, so there the file is
written by an exporter whose model has another epsilon in one norm.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.exporters.variants import exported, trained
from tests.verification.locate.planting import change_weight, copied, edit_onnx
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.exporters import EXPORTERS, ExportOptions, tracing
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.model.vit import ViT
from vit_deploy.verification.activations import activation_names
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.locate import TAPPERS
from vit_deploy.verification.locate.divergence import locate
from vit_deploy.verification.recording import record, write_golden
from vit_deploy.verification.verifying import verify

FORMATS = tuple(TAPPERS)


@pytest.fixture(scope="module")
def checkpoint():
    return trained(num_layers=3)


@pytest.fixture(scope="module")
def right(checkpoint, tmp_path_factory):
    """A proven artifact of each format, of a model with three blocks."""
    jobs, _ = plan(list(FORMATS), ["fp32"])
    results = export(checkpoint, tmp_path_factory.mktemp("right"), jobs)
    assert all(result.published for result in results)
    return {result.artifact.format: result.artifact.directory for result in results}


def one_more(values):
    values[3, 5] += 0.3
    return values


def two_heads_swapped(values):
    return np.concatenate([values[..., 4:8], values[..., :4], values[..., 8:]], axis=-1)


PRODUCT = r"(Gemm|BatchMatMulV2|FULLY_CONNECTED) "
FAULTS = {
    "one changed weight": (["block_1.ffn.up.kernel"], one_more, "block_1.ffn", PRODUCT),
    "a swapped pair of heads": (
        ["block_1.attention.value.kernel", "block_1.attention.value.bias"],
        two_heads_swapped,
        "block_1.attention",
        PRODUCT,
    ),
    "a transposed kernel": (
        ["block_2.attention.out.kernel"],
        np.transpose,
        "block_2.attention",
        PRODUCT,
    ),
    "a wrong position table": (["pos_embed.table"], lambda table: table[::-1], "pos_embed", r"(Add|AddV2|ADD) "),
}
ROLES = {
    "one changed weight": r"block_1.*ffn.*up",
    "a swapped pair of heads": r"block_1.*attention.*value",
    "a transposed kernel": r"block_2.*attention.*out",
    "a wrong position table": r"pos_embed",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_and_located(right, tmp_path, format, fault):
    names, edit, activation, operator = FAULTS[fault]
    artifact = copied(right[format], tmp_path / "bundle")
    for name in names:
        artifact = change_weight(artifact, name, edit)
    assert not verify(artifact).ok
    found = locate(artifact)
    assert found.activation == activation
    assert re.match(operator, found.operator)
    if format != "tflite":  # whose operators have numbers alone
        assert re.search(ROLES[fault], found.operator)
    before = found.activations[: [deviation.name for deviation in found.activations].index(activation)]
    assert all(each.ok and each.error is not None for each in before)


class OtherEpsilon(ViT):
    """A ViT of which one norm has an epsilon of its own."""

    @classmethod
    def from_structure(cls, config, **options):
        model = ViT.from_structure(config, **options)
        model.transformer_layers[1].norm2.epsilon = 1e-2
        return model


@pytest.mark.parametrize("format", FORMATS)
def test_a_wrong_epsilon_is_caught_and_located(right, checkpoint, tmp_path, monkeypatch, format):
    if format == "onnx":
        artifact = edit_onnx(copied(right[format], tmp_path / "bundle"), other_epsilon)
    else:
        monkeypatch.setattr(tracing, "ViT", OtherEpsilon)
        options = ExportOptions(batch=1) if format == "tflite" else ExportOptions()
        artifact = exported(EXPORTERS.load(format)(), checkpoint, tmp_path, options)
        write_golden(read_golden(read_artifact(right[format])), tmp_path)
        artifact = write_manifest(artifact)
    assert not verify(artifact).ok
    found = locate(artifact)
    assert found.activation == "block_1.ffn"
    assert found.operator.startswith({"onnx": "LayerNormalization ", "tflite": "MUL #", "savedmodel": "AddV2 "}[format])
    if format != "tflite":
        assert re.search(r"block_1.*norm2", found.operator)


def other_epsilon(model):
    (node,) = (operator for operator in model.graph.node if operator.name.startswith("block_1.norm2"))
    (attribute,) = (attr for attr in node.attribute if attr.name == "epsilon")
    attribute.f = 1e-2


WEIGHTS = {
    "patch_embed.kernel": ("patch_embed", "Conv patch_embed"),
    "class_token.class": ("pos_embed", "Concat class_token"),
    "block_0.norm1.scale": ("block_0.attention", "LayerNormalization block_0.norm1"),
    "block_1.attention.query.kernel": ("block_1.attention", "Gemm block_1.attention.query"),
    "block_1.attention.key.kernel": ("block_1.attention", "Gemm block_1.attention.key"),
    "block_0.attention.out.bias": ("block_0.attention", "Gemm block_0.attention.out"),
    "block_1.norm2.bias": ("block_1.ffn", "LayerNormalization block_1.norm2"),
    "block_1.ffn.down.kernel": ("block_1.ffn", "Gemm block_1.ffn.down"),
    "block_2.attention.query.kernel": ("block_2.attention", "Gemm block_2.attention.query"),
    "block_2.attention.value.kernel": ("block_2.attention", "Gemm block_2.attention.value"),
    "block_2.ffn.up.bias": ("block_2.ffn", "Gemm block_2.ffn.up"),
    "norm.scale": ("norm", "LayerNormalization norm."),
    "head.kernel": ("head", "Gemm head"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_single_number_in_any_weight_is_traced_to_the_operator_that_reads_it(right, tmp_path, name):
    def edit(values):
        values.reshape(-1)[-2] += 0.02
        return values

    found = locate(change_weight(copied(right["onnx"], tmp_path / "bundle"), name, edit))
    activation, operator = WEIGHTS[name]
    assert found.activation == activation
    assert found.operator.startswith(operator)


def test_one_position_of_one_token_is_found_where_it_is_added(right, tmp_path):
    def edit(table):
        table[17, 3] += 0.001
        return table

    found = locate(change_weight(copied(right["onnx"], tmp_path / "bundle"), "pos_embed.table", edit))
    assert (found.activation, found.operator) == ("pos_embed", "Add pos_embed.Add")


def test_a_weight_that_is_nan_is_found_and_its_error_is_infinite(right, tmp_path):
    def edit(values):
        values[0, 0] = np.nan
        return values

    found = locate(change_weight(copied(right["onnx"], tmp_path / "bundle"), "block_1.ffn.down.kernel", edit))
    assert found.activation == "block_1.ffn" and found.operator.startswith("Gemm block_1.ffn.down")
    errors = {activation.name: activation.error for activation in found.activations}
    assert errors["block_1.attention"] < 1e-4 and errors["block_1.ffn"] == np.inf
    assert found.growth()[activation_names(found.artifact.config).index("block_1.ffn")] is None


@pytest.mark.parametrize("format", FORMATS)
def test_in_a_right_file_every_tap_is_found_and_none_leaves_the_reference(right, checkpoint, format):
    artifact = read_artifact(right[format])
    found = locate(artifact)
    assert (found.activation, found.operator) == (None, None)
    assert [activation.name for activation in found.activations] == list(activation_names(checkpoint.config))
    assert all(
        activation.error is not None and activation.error <= activation.tolerance for activation in found.activations
    )
    assert "nothing leaves the reference" in found.notes[0]
    assert [activation.tolerance for activation in found.activations] == pytest.approx(
        [10 * activation.noise_floor for activation in found.activations]
    )


def test_weights_beside_an_onnx_file_stay_there(right, checkpoint, tmp_path):
    artifact = exported(OnnxExporter(external_limit=0), checkpoint, tmp_path, ExportOptions())
    write_golden(read_golden(read_artifact(right["onnx"])), tmp_path)
    artifact = write_manifest(artifact)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert "model.onnx.data" in files
    assert locate(artifact).activation is None
    data = tmp_path / "model.onnx.data"
    content = bytearray(data.read_bytes())
    kernel = checkpoint.weights["block_1.ffn.up.kernel"]
    place = content.index(kernel.tobytes())
    content[place : place + 4] = np.float32(kernel[0, 0] + 0.5).tobytes()
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    data.write_bytes(content)
    found = locate(artifact)
    assert found.activation == "block_1.ffn" and found.operator.startswith("Gemm block_1.ffn.up")


def test_a_checkpoints_own_activations_can_be_compared_with_instead(right, checkpoint):
    artifact = read_artifact(right["onnx"])
    other = record(trained(num_layers=3, activation="relu"))
    found = locate(artifact, golden=other)
    assert found.activation == "block_0.ffn" and found.operator.startswith("Gelu block_0.ffn")
    assert locate(artifact, golden=record(checkpoint)).activation is None
    assert read_golden(artifact).activations is not None
