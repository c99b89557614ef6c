import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from tests.exporters.variants import assert_same_function, exported, pixels, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.savedmodel.export import SavedModelExporter
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.model.vit import ViT

TOKENS_READ = {
    "class": ({}, 1),
    "post-norm": ({"normalization_position": "post"}, 1),
    "norms of queries and keys": ({"qk_norm": True}, 1),
    "gated": ({"ffn_type": "swiglu"}, 1),
    "no head": ({"include_top": False, "pooling": "cls"}, 1),
    "class and distillation": ({"distillation_token": True, "pooling": "cls_distillation"}, 2),
}
EVERY_TOKEN = {
    "mean": {"pooling": "mean"},
    "class and mean": {"include_top": False, "pooling": "cls_mean"},
    "a sequence": {"include_top": False, "pooling": None},
}


def tflite_rows(path, width):
    """Rows of each product of this width, over all images, in the order of the file."""
    interpreter = Interpreter(model_path=str(path))
    shapes = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    outputs = [
        detail["outputs"][0] for detail in interpreter._get_ops_details() if detail["op_name"] == "FULLY_CONNECTED"
    ]
    return [int(np.prod(shapes[index][:-1])) for index in outputs if shapes[index][-1] == width]


def savedmodel_rows(path, width):
    """Rows an image of each product of this width."""
    loaded = tf.saved_model.load(str(path))
    graph = convert_variables_to_constants_v2(loaded.signatures["serving_default"]).graph
    products = [operation.outputs[0].shape for operation in graph.get_operations() if operation.type == "BatchMatMulV2"]
    return [shape[1] for shape in products if shape.rank == 3 and shape[-1] == width]


# That queries have rows of their own is seen in a block by itself too; the others differ behind it.
SLOW = ("norms of queries and keys", "gated", "no head")


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.slow if name in SLOW else [])
        for name, case in TOKENS_READ.items()
    ],
)
def test_the_last_block_computes_the_tokens_that_are_read_and_the_others_all(changes, count, tmp_path):
    checkpoint = trained(**changes)
    config = checkpoint.config
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))
    products = 2 if "ffn_type" in changes else 1
    rows = [*[config.sequence_length] * products, *[count] * products]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    light = exported(TFLiteExporter(), checkpoint, tmp_path / "one", ExportOptions(batch=3))
    saved = exported(SavedModelExporter(), checkpoint, tmp_path / "two", ExportOptions())

    assert config.num_tokens_read == count
    assert tflite_rows(light.model_path, config.mlp_dim) == [3 * row for row in rows]
    assert savedmodel_rows(saved.model_path, config.mlp_dim) == rows
    outputs = Interpreter(model_path=str(light.model_path)).get_signature_runner("serving_default")(images=images)
    assert_same_function(outputs[config.output_name], checkpoint, images)


@pytest.mark.parametrize("changes", EVERY_TOKEN.values(), ids=EVERY_TOKEN)
def test_a_pooling_that_reads_every_token_gets_every_token(changes, tmp_path):
    checkpoint = trained(**changes)
    config = checkpoint.config

    artifact = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))

    assert tflite_rows(artifact.model_path, config.mlp_dim) == [config.sequence_length] * 2


def test_first_queries_give_the_rows_that_all_queries_give():
    checkpoint = trained(qk_norm=True)
    model = ViT.from_checkpoint(checkpoint)
    block = model.transformer_layers[-1]
    tokens = np.random.default_rng(0).standard_normal(
        (2, checkpoint.config.sequence_length, checkpoint.config.embed_dim)
    )
    every = np.asarray(block(tokens))

    block.attention.num_queries = 2

    np.testing.assert_allclose(np.asarray(block(tokens)), every[:, :2], rtol=0, atol=1e-5 * np.abs(every).max())
