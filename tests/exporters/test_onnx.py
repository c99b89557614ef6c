import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.exporters.variants import SMALL, VARIANTS, assert_same_function, exported, pixels, trained
from vit_deploy.errors import ExportError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx import OnnxExporter
from vit_deploy.model import block, layers

EXPORT = """
import sys
from pathlib import Path

from tests.exporters.variants import exported, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx import OnnxExporter

if len(sys.argv) > 2:
    exported(OnnxExporter(), trained(pooling="mean"), Path(sys.argv[1]), ExportOptions())
exported(OnnxExporter(), trained(), Path(sys.argv[1]), ExportOptions())
"""

HUGE = """
import resource
import sys
from pathlib import Path

from vit_deploy.artifact import describe
from vit_deploy.checkpoint import Checkpoint
from vit_deploy.config import ViTConfig
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx import OnnxExporter

checkpoint = Checkpoint.random(ViTConfig.from_scale("huge", patch_size=14), 0)
options = ExportOptions()
spec = options.input_spec(checkpoint.config)
artifact = describe(checkpoint, Path(sys.argv[1]), format="onnx", precision="fp32", input=spec)
OnnxExporter().write(checkpoint, artifact, options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, checkpoint.num_bytes)
"""

# What all graphs of two blocks have in common: patch embedding, class token, attention and projections.
COMMON = {"Transpose": 11, "Conv": 1, "Shape": 1, "Concat": 2, "Expand": 1, "MatMul": 4, "Softmax": 2}
PLAIN = COMMON | {"Reshape": 12, "Gather": 2, "Gemm": 13, "Mul": 2, "Add": 5, "LayerNormalization": 5, "Gelu": 2}
SEQUENCE = {"Reshape": 11, "Gather": 0}
RMS = {"LayerNormalization": 0, "Pow": 5, "ReduceMean": 5, "Add": 10, "Sqrt": 5, "Div": 5, "Mul": 7}
TANH = {"LayerNormalization": 0, "Mul": 12, "Tanh": 5, "Add": 10}
BAND = RMS | {"Mul": 17, "Add": 15, "Sigmoid": 5}
POST = {"Reshape": 11, "Gather": 1}
NO_PREFIX = {"Shape": 0, "Concat": 0, "Expand": 0}
PROBE = {"Transpose": 13, "Reshape": 14, "MatMul": 6, "Softmax": 3, "Gather": 0}

COUNTS: dict[str, dict[str, int]] = {
    "layer_norm-post": POST,
    "rms_norm-pre": RMS,
    "rms_norm-post": RMS | POST,
    "dynamic_tanh-pre": TANH,
    "dynamic_tanh-post": TANH | POST,
    "band_rms-pre": BAND,
    "band_rms-post": BAND | POST,
    "swiglu": {"Gemm": 15, "Gelu": 0, "Sigmoid": 2, "Mul": 6},
    "geglu": {"Gemm": 15, "Mul": 4},
    "glu": {"Gemm": 15, "Gelu": 0, "Sigmoid": 2, "Mul": 4},
    "gelu_tanh": {},
    "quick_gelu": {"Gelu": 0, "Sigmoid": 2, "Mul": 6},
    "relu": {"Gelu": 0, "Relu": 2},
    "relu6": {"Gelu": 0, "Clip": 2},
    "leaky_relu": {"Gelu": 0, "LeakyRelu": 2},
    "elu": {"Gelu": 0, "Elu": 2},
    "silu": {"Gelu": 0, "Sigmoid": 2, "Mul": 4},
    "hard_silu": {"Gelu": 0, "HardSwish": 2},
    "sigmoid": {"Gelu": 0, "Sigmoid": 2},
    "tanh": {"Gelu": 0, "Tanh": 2},
    "mean pooling": SEQUENCE | {"Slice": 1, "ReduceMean": 1},
    "max pooling": SEQUENCE | {"Slice": 1, "ReduceMax": 1},
    "no head, class token": {"Gemm": 12},
    "no head, mean": SEQUENCE | {"Slice": 1, "ReduceMean": 1, "Gemm": 12},
    "no head, max": SEQUENCE | {"Slice": 1, "ReduceMax": 1, "Gemm": 12},
    "no head, sequence": SEQUENCE | {"Gemm": 12},
    "no qkv bias": {"Gemm": 7, "MatMul": 10},
    # What there is no operator for is computed from weights alone, once, when the file is loaded: the tokens of the
    # prefix one after the other, the probe's query, the factor of a band.
    "DINOv2 with registers": {
        **{"Gemm": 15, "Gelu": 0, "Sigmoid": 2, "Mul": 6, "Concat": 4},
        **{"Gather": 0, "Slice": 2, "Squeeze": 1, "ReduceMean": 1},
    },
    "CLIP": {"Gemm": 12, "LayerNormalization": 6, "Gelu": 0, "Sigmoid": 2, "Mul": 6},
    "SigLIP": NO_PREFIX | PROBE | {"Gemm": 18, "LayerNormalization": 6, "Gelu": 3, "Add": 6, "Mul": 3},
    "DeiT": {"Concat": 3, "Reshape": 15},
    "AugReg with pre-logits": {"Gemm": 14, "Tanh": 1},
    "averaged patches, norm after": NO_PREFIX | SEQUENCE | {"LayerNormalization": 9, "Slice": 1, "ReduceMean": 1},
    "prefix of five, class token": {"Concat": 3, "LayerNormalization": 9, "Gemm": 7, "MatMul": 10},
    "sequence behind registers": SEQUENCE | {"LayerNormalization": 6, "Gemm": 12},
    "post-norm behind a norm, probe": {
        **NO_PREFIX,
        **PROBE,
        **{"LayerNormalization": 7, "Gemm": 19, "Gelu": 3, "Add": 6, "Mul": 3},
    },
    "post-norm, RMS, probe": {
        **PROBE,
        **{"LayerNormalization": 0, "Pow": 10, "ReduceMean": 10, "Add": 16, "Sqrt": 10, "Div": 10, "Mul": 17},
        **{"Gemm": 22, "Gelu": 1, "Sigmoid": 2, "Tanh": 1},
    },
    "band RMS, both tokens": {
        **{"LayerNormalization": 0, "Pow": 10, "ReduceMean": 10, "Add": 25, "Sqrt": 10, "Div": 10, "Mul": 32},
        **{"Sigmoid": 10, "Gemm": 14, "Tanh": 1, "Concat": 3, "Reshape": 15},
    },
    "dynamic tanh, greatest patch": {
        **SEQUENCE,
        **{"LayerNormalization": 0, "Mul": 20, "Tanh": 9, "Add": 14, "Slice": 1, "ReduceMax": 1},
    },
}

PARTS = ("kernel", "bias")
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}


def run(path: Path, images: Any) -> Any:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": images})
    return outputs


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def write(directory: Path, *, exporter: OnnxExporter | None = None, options: Any = None, **changes: Any) -> Any:
    """The checkpoint, the file's path and its model."""
    checkpoint = trained(**changes)
    artifact = exported(exporter or OnnxExporter(), checkpoint, directory, options or ExportOptions())
    return checkpoint, artifact.model_path, onnx.load(str(artifact.model_path))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_the_reference_with_the_operators_it_needs(name, tmp_path):
    checkpoint, path, model = write(tmp_path, **VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))

    assert_same_function(run(path, images), checkpoint, images)
    assert operators(model) == Counter(PLAIN | COUNTS.get(name, {}))
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize(
    "name", [*(name for name in VARIANTS if "norm" in name or "pool" in name), "gelu_tanh", "geglu", "SigLIP"]
)
def test_opset_17_computes_the_same(name, tmp_path):
    checkpoint, path, model = write(tmp_path, options=ExportOptions(opset=17), **VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    assert_same_function(run(path, images), checkpoint, images)
    assert operators(model)["Gelu"] == 0


@pytest.mark.parametrize("opset", IR_VERSIONS)
def test_each_opset_has_the_lowest_ir_version_that_allows_it(opset, tmp_path):
    checkpoint, path, model = write(tmp_path, options=ExportOptions(opset=opset))
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    assert_same_function(run(path, images), checkpoint, images)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
    assert model.ir_version == IR_VERSIONS[opset]
    assert operators(model)["LayerNormalization"] == 5
    assert operators(model)["Gelu" if opset >= 20 else "Erf"] == 2


@pytest.mark.parametrize(
    ("changes", "norms"), [({}, 2), ({"layer_scale": True, "qk_norm": True, "register_tokens": 2}, 4)]
)
def test_a_block_adds_at_most_29_nodes_and_its_norms_and_the_rest_is_at_most_20(changes, norms, tmp_path):
    sizes = []
    for depth in (2, 3):
        _, _, model = write(tmp_path, num_layers=depth, **changes)
        counts = operators(model)
        sizes.append(len(model.graph.node))
        assert (counts["LayerNormalization"], counts["Gelu"], counts["Cast"]) == (norms * depth + 1, depth, 0)
        assert counts["Shape"] == 1

    a_block = sizes[1] - sizes[0]
    assert a_block <= 29 + norms
    assert sizes[0] - 2 * a_block <= 20


def test_tanh_gelu_is_one_operator_that_says_so(tmp_path):
    _, _, model = write(tmp_path, activation="gelu_tanh")

    gelus = [node for node in model.graph.node if node.op_type == "Gelu"]
    assert [onnx.helper.get_node_attr_value(node, "approximate") for node in gelus] == [b"tanh"] * 2


@pytest.mark.parametrize(
    ("name", "read", "tokens"),
    [("gelu_tanh", 1, 25), ("prefix of five, class token", 1, 29), ("DeiT", 2, 26), ("band RMS, both tokens", 2, 27)],
)
def test_only_the_key_and_the_value_of_the_last_block_see_all_tokens(name, read, tokens, tmp_path):
    _, path, _ = write(tmp_path, **VARIANTS[name])

    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True, data_prop=True)
    shapes = {
        each.name: [side.dim_value for side in each.type.tensor_type.shape.dim] for each in inferred.graph.value_info
    }
    assert shapes["block_0.attention.Softmax"][1:] == [3, tokens, tokens]
    assert shapes["block_1.attention.Softmax"][1:] == [3, read, tokens]


def test_layer_scales_are_in_the_projections_before_them_and_the_file_says_what_it_was_made_from(tmp_path):
    checkpoint = trained(layer_scale=True)
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions())

    model = onnx.load(str(artifact.model_path))
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    scaled = {f"block_{i}.{each}.{part}" for i in (0, 1) for each in ("attention.out", "ffn.down") for part in PARTS}
    for name, weight in checkpoint.weights.items():
        if name in scaled:
            gamma = checkpoint.weights[f"{name[:8]}scale{1 if 'attention' in name else 2}.gamma"]
            np.testing.assert_allclose(stored[name], weight.astype(np.float64) * gamma, rtol=1e-7)
        elif "gamma" in name:
            assert name not in stored
        else:
            np.testing.assert_array_equal(stored[name], weight, strict=True)
    recorded = {each.key: each.value for each in model.metadata_props}
    assert json.loads(recorded["vit_deploy.config"])["layer_scale"] is True
    assert json.loads(recorded["vit_deploy.weights_digest"]) == checkpoint.digest()


@pytest.mark.parametrize(
    "changes", [{}, {"pooling": "mean", "channels": 1}, {"include_top": False}, VARIANTS["SigLIP"]]
)
def test_images_with_channels_first_need_no_transpose(changes, tmp_path):
    options = ExportOptions(layout="nchw")
    checkpoint, path, model = write(tmp_path, options=options, **changes)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))

    assert_same_function(run(path, images.transpose(0, 3, 1, 2)), checkpoint, images)
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    assert conv.input[0] == "images"
    assert sides(model.graph.input[0]) == ["batch", checkpoint.config.channels, 24, 32]


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_go_in_when_preprocessing_is_inside(layout, channels, tmp_path):
    options = ExportOptions(layout=layout, include_preprocessing=True)
    checkpoint, path, model = write(tmp_path, options=options, channels=channels)
    raw = pixels(checkpoint, 3)

    outputs = run(path, raw.transpose(0, 3, 1, 2) if layout == "nchw" else raw)

    assert_same_function(outputs, checkpoint, checkpoint.preprocess.normalize(raw))
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert operators(model)["Cast"] == 1


def sides(value: onnx.ValueInfoProto) -> list[int | str]:
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]


def test_the_input_is_images_and_the_output_logits_of_an_open_batch(tmp_path):
    _, _, model = write(tmp_path)

    assert [(each.name, sides(each)) for each in model.graph.input] == [("images", ["batch", 24, 32, 3])]
    assert [(each.name, sides(each)) for each in model.graph.output] == [("logits", ["batch", 5])]


@pytest.mark.parametrize("name", ["DeiT", "SigLIP", "band RMS, both tokens"])
def test_every_prefix_is_of_a_fixed_batch_as_well(name, tmp_path):
    checkpoint, path, model = write(tmp_path, options=ExportOptions(batch=2, opset=18), **VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    assert_same_function(run(path, images), checkpoint, images)
    assert operators(model)["Shape"] == 0


def test_a_fixed_batch_leaves_no_shape_to_compute(tmp_path):
    checkpoint, path, model = write(tmp_path, options=ExportOptions(batch=2), include_top=False)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    assert_same_function(run(path, images), checkpoint, images)
    assert [(each.name, sides(each)) for each in model.graph.input] == [("images", [2, 24, 32, 3])]
    assert [(each.name, sides(each)) for each in model.graph.output] == [("features", [2, 25, 12])]
    assert operators(model)["Shape"] == 0


@pytest.mark.parametrize("norm", ["layer_norm", "dynamic_tanh", "band_rms"])
def test_initializers_are_the_weights_under_their_canonical_names_even_equal_ones(norm, tmp_path):
    checkpoint = trained(normalization_type=norm)
    equal = {name: np.zeros_like(weight) for name, weight in checkpoint.weights.items()}
    for weights in (checkpoint.weights, equal):
        artifact = exported(OnnxExporter(), dataclasses.replace(checkpoint, weights=weights), tmp_path, ExportOptions())
        model = onnx.load(str(artifact.model_path))
        stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}

        used = {name for node in model.graph.node for name in node.input}
        for name, weight in weights.items():
            assert name in used
            np.testing.assert_array_equal(stored[name], weight, strict=True)
        assert all(array.size <= 4 for name, array in stored.items() if name not in weights)


def test_the_essentials_and_the_producer_are_inside(tmp_path):
    checkpoint = trained()
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions())

    model = onnx.load(str(artifact.model_path))

    assert {each.key: each.value for each in model.metadata_props} == artifact.essentials()
    assert json.loads(artifact.essentials()["vit_deploy.input"])["name"] == "images"
    assert model.producer_name == "vit-deploy"


def test_nodes_are_named_after_the_parts_of_the_model(tmp_path):
    _, _, model = write(tmp_path)

    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert {"patch_embed.Conv", "class_token.Expand", "pos_embed.Add", "norm.LayerNormalization", "head.Gemm"} < {
        *names
    }
    assert {"block_1.norm2.LayerNormalization", "block_0.attention.query.Gemm", "block_1.ffn.Gelu"} < {*names}


def test_large_weights_lie_beside_the_model_on_whole_pages(tmp_path):
    checkpoint = trained()
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    inside = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions()).model_path
    expected = run(inside, images)
    assert not inside.with_name("model.onnx.data").exists()

    path = exported(OnnxExporter(external_limit=checkpoint.num_bytes), checkpoint, tmp_path, ExportOptions()).model_path

    plain = onnx.load(str(path), load_external_data=False)
    kept = {each.name: each for each in plain.graph.initializer if each.name in checkpoint.weights}
    assert set(kept) == set(checkpoint.weights)
    for each in kept.values():
        entries = {entry.key: entry.value for entry in each.external_data}
        assert entries["location"] == "model.onnx.data"
        assert int(entries["offset"]) % 4096 == 0
    assert path.stat().st_size < path.with_name("model.onnx.data").stat().st_size
    np.testing.assert_array_equal(run(path, images), expected)
    loaded = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(str(path)).graph.initializer}
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(loaded[name], weight, strict=True)


def test_weights_just_below_the_limit_stay_inside(tmp_path):
    checkpoint = trained()
    exporter = OnnxExporter(external_limit=checkpoint.num_bytes + 1)

    exported(exporter, checkpoint, tmp_path, ExportOptions())

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_whatever_they_wrote_before(tmp_path):
    files = []
    for name, arguments in (("one", []), ("two", ["and another before"])):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, "-c", EXPORT, str(folder), *arguments]
        done = subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.stdout == ""
        files.append((folder / "model.onnx").read_bytes())

    assert files[0] == files[1]


def test_an_operator_that_tf2onnx_only_logs_as_unsupported_is_an_error(tmp_path, monkeypatch, capfd):
    import tensorflow as tf

    monkeypatch.setattr(block, "ACTIVATIONS", {**block.ACTIVATIONS, "relu": tf.math.bessel_i0e})

    with pytest.raises(ExportError, match="BesselI0e"):
        write(tmp_path, activation="relu")

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_is_not_known_to_be_portable_is_an_error(tmp_path, monkeypatch):
    from keras import ops

    monkeypatch.setattr(block, "ACTIVATIONS", {**block.ACTIVATIONS, "relu": ops.softplus})

    with pytest.raises(ExportError, match="Softplus"):
        write(tmp_path, activation="relu")


def test_weights_that_the_graph_does_not_use_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(block.Attention, "_products", lambda self, query, key, value, training: query)

    with pytest.raises(ExportError, match=r"block_0\.attention\.key\.kernel.*block_1\.attention\.value\.bias"):
        write(tmp_path)


def test_another_token_in_the_place_of_the_class_token_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "take_tokens", lambda tokens, start, count: tokens[:, start + 1 : start + 1 + count])

    with pytest.raises(ExportError, match="expected Squeeze of Slice of Reshape for the first token"):
        write(tmp_path)


def test_positions_that_are_not_added_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(layers.PositionEmbedding, "call", lambda self, tokens, training=None: tokens * self.table)

    with pytest.raises(ExportError, match="expected one Add"):
        write(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "model.onnx").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path, **{**SMALL, "embed_dim": 96, "mlp_dim": 256})


@pytest.mark.slow
def test_huge_takes_at_most_four_times_the_memory_of_its_weights(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path)], check=True, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )

    peak, weights = map(int, done.stdout.split())
    assert peak <= 4 * weights
    assert (tmp_path / "model.onnx.data").stat().st_size >= weights
