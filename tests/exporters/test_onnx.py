"""ONNX files compute the reference, in every variant and form, with no more operators than they need."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

from tests.exporters.onnx_files import operators, run, sides, write
from tests.exporters.variants import VARIANTS, assert_same_function, pixels
from vit_deploy.exporters import ExportOptions

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

RES_POST = {"Gather": 1, "Reshape": 11}
COUNTS: dict[str, dict[str, int]] = {
    "layer_norm-post": POST,
    "rms_norm-pre": RMS,
    "rms_norm-post": RMS | POST,
    "dynamic_tanh-pre": TANH,
    "dynamic_tanh-post": TANH | POST,
    "band_rms-pre": BAND,
    "band_rms-post": BAND | POST,
    # The class token of the last block is gathered once, of what its attention adds to.
    "layer_norm-res_post": RES_POST,
    "rms_norm-res_post": RMS | RES_POST,
    "dynamic_tanh-res_post": TANH | RES_POST,
    "band_rms-res_post": BAND | RES_POST,
    # One norm a block and the last one.
    "layer_norm-parallel": {"LayerNormalization": 3},
    "rms_norm-parallel": RMS | {"Add": 8, "Div": 3, "Mul": 5, "Pow": 3, "ReduceMean": 3, "Sqrt": 3},
    "dynamic_tanh-parallel": TANH | {"Add": 8, "Mul": 8, "Tanh": 3},
    "band_rms-parallel": BAND | {"Add": 11, "Div": 3, "Mul": 11, "Pow": 3, "ReduceMean": 3, "Sigmoid": 3, "Sqrt": 3},
    "leaky_relu_0.01": {"Gelu": 0, "LeakyRelu": 2},
    "squared_relu": {"Gelu": 0, "Mul": 4, "Relu": 2},
    "gelu_clipped": {"Max": 2, "Min": 2},
    "mish": {"Div": 2, "Gelu": 0, "Mul": 6, "Sigmoid": 2, "Sub": 4},
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
    # Each time two slices, a concatenation, two products with a table and their sum; the queries' table scales them.
    "DINOv3": {"Slice": 6, "Concat": 6, "Mul": 7, "Add": 8},
    "EVA-02": {
        **SEQUENCE,
        **{"Slice": 9, "Concat": 6, "Mul": 12, "Add": 9},
        **{"Gemm": 15, "Gelu": 0, "Sigmoid": 2, "LayerNormalization": 13, "ReduceMean": 1},
    },
    "Perception Encoder": {
        **PROBE,
        **{"Gemm": 19, "Gelu": 3, "LayerNormalization": 9, "Slice": 10, "Concat": 6, "Mul": 9, "Add": 10},
        "Reshape": 16,  # keys and values without those of the prefix
    },
    # Positions are one more sum in front of each softmax.
    "BEiT": SEQUENCE | {"Add": 7, "ReduceMean": 1, "Slice": 1},
    "shared distances, norms inside, class token": RES_POST
    | {"Add": 7, "Concat": 3, "LayerNormalization": 9, "Slice": 1},
    "AIMv2": NO_PREFIX
    | PROBE
    | {"Add": 11, "Div": 6, "Gelu": 0, "LayerNormalization": 0, "MatMul": 12, "Mul": 13, "Pow": 6}
    | {"ReduceMean": 6, "Sigmoid": 2, "Sqrt": 6},
    "PIXIO": SEQUENCE | {"Concat": 3, "Gemm": 12, "ReduceMean": 1, "Slice": 1},
    "CoCa": PROBE | {"Gemm": 17, "LayerNormalization": 7, "Mul": 3},
    "ViTPose": NO_PREFIX | SEQUENCE | {"Gemm": 12, "Pad": 1, "Slice": 1},
    "vit-pytorch": {"Gemm": 7, "LayerNormalization": 7, "MatMul": 10, "Reshape": 16, "Transpose": 13},
    "ViT-22B": {"Div": 2, "Gelu": 0, "LayerNormalization": 7, "Mul": 6, "Sigmoid": 2, "Sub": 4},
    # The norm in front of the head.
    "CLIP's classes from words": {
        **{"Gemm": 14, "LayerNormalization": 6, "Gelu": 0, "Sigmoid": 2, "Mul": 6},
        **{"Add": 6, "Pow": 1, "ReduceMean": 1, "Sqrt": 1, "Div": 1},
    },
    "SigLIP's classes from words": NO_PREFIX
    | PROBE
    | {"Gemm": 19, "LayerNormalization": 6, "Gelu": 3, "Add": 7, "Mul": 3}
    | {"Pow": 1, "ReduceMean": 1, "Sqrt": 1, "Div": 1},
    "wide heads": {
        **PROBE,
        **{"Gemm": 19, "Gelu": 3, "LayerNormalization": 12, "Slice": 8, "Concat": 6, "Mul": 9, "Add": 10},
    },
    "few heads": {"Gemm": 15, "Mul": 4, "Add": 7, "Slice": 1},
    # RMS norms of queries and keys over all heads stand between layer norms that are one operator each.
    "InternViT": SEQUENCE
    | {"Gemm": 12, "LayerNormalization": 4, "Pow": 4, "ReduceMean": 5, "Add": 9, "Sqrt": 4, "Div": 4, "Mul": 6}
    | {"Slice": 1},
    "Sapiens 2": {
        **{"LayerNormalization": 4, "Pow": 5, "ReduceMean": 5, "Add": 13, "Sqrt": 5, "Div": 5, "Mul": 12},
        **{"Slice": 6, "Concat": 5},
    },
    "Janus, feed-forwards scaled": SEQUENCE | {"Gemm": 12, "LayerNormalization": 9},
    "no last norm": SEQUENCE | {"Slice": 1, "ReduceMean": 1},
    "RoPE-ViT, mixed": SEQUENCE | {"Gemm": 12, "Slice": 8, "Concat": 6, "Mul": 8, "Add": 9},
    "MLCD": {"Gemm": 12, "LayerNormalization": 6, "Slice": 8, "Concat": 6, "Mul": 8, "Add": 9},
}

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_the_reference_with_the_operators_it_needs(name, tmp_path):
    checkpoint, path, model = write(tmp_path, **VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))

    assert_same_function(run(path, images), checkpoint, images)
    assert operators(model) == Counter(PLAIN | COUNTS.get(name, {}))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=[] if name.endswith("-pre") else pytest.mark.slow)
            for name in VARIANTS
            if "norm" in name or "pool" in name
        ),
        *("gelu_tanh", "geglu", "SigLIP"),
    ],
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


def test_a_block_of_dinov3_adds_eleven_nodes_to_a_plain_one_and_no_shape_is_computed(tmp_path):
    files = [operators(write(tmp_path, num_layers=depth, **VARIANTS["DINOv3"])[2]) for depth in (3, 4)]
    plain = [operators(write(tmp_path, num_layers=depth)[2]) for depth in (3, 4)]
    block, usual = (two - one for one, two in (files, plain))

    assert block - usual == {"Slice": 4, "Concat": 2, "Mul": 3, "Add": 2}
    assert usual - block == {}
    assert not {"Range", "Tile", "If", "Cast", "Sin", "Cos", "Split"} & set(files[1])
    assert files[1]["Shape"] == 1


def test_blocks_that_turn_alike_share_their_tables(tmp_path):
    _, _, model = write(tmp_path, num_layers=4, **VARIANTS["DINOv3"])
    sides = [tuple(tensor.dims) for tensor in model.graph.initializer if not tensor.name.startswith("block_")]
    tokens, head_dim = 3 + 24, 4
    assert (sides.count((tokens, head_dim)), sides.count((head_dim, tokens))) == (2, 2)


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
        info.name: [side.dim_value for side in info.type.tensor_type.shape.dim] for info in inferred.graph.value_info
    }
    assert shapes["block_0.attention.Softmax"][1:] == [3, tokens, tokens]
    assert shapes["block_1.attention.Softmax"][1:] == [3, read, tokens]


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


def test_the_input_is_images_and_the_output_logits_of_an_open_batch(tmp_path):
    _, _, model = write(tmp_path)

    assert [(tensor.name, sides(tensor)) for tensor in model.graph.input] == [("images", ["batch", 24, 32, 3])]
    assert [(tensor.name, sides(tensor)) for tensor in model.graph.output] == [("logits", ["batch", 5])]


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
    assert [(tensor.name, sides(tensor)) for tensor in model.graph.input] == [("images", [2, 24, 32, 3])]
    assert [(tensor.name, sides(tensor)) for tensor in model.graph.output] == [("features", [2, 25, 12])]
    assert operators(model)["Shape"] == 0
