"""Options that are each fine alone, several at once: the whole way to a published and proven bundle."""

from __future__ import annotations

import pytest

from tests.exporters.variants import trained
from vit_deploy.exporters.stage import export, plan

COMBINATIONS = {
    "post-norm with pixels in, channels first, one image": (
        {"normalization_position": "post", "pooling": "cls"},
        {"batch": 1, "layout": "nchw", "include_preprocessing": True},
    ),
    "gray pixels in, channels first": (
        {"channels": 1, "ffn_type": "swiglu", "normalization_type": "rms_norm"},
        {"layout": "nchw", "include_preprocessing": True, "opset": 17},
    ),
    "five channels, mean of the tokens, three images": (
        {"channels": 5, "pooling": "mean", "include_top": False, "normalization_type": "dynamic_tanh"},
        {"batch": 3, "layout": "nchw", "opset": 18},
    ),
    "one layer, whole sequence": (
        {"num_layers": 1, "include_top": False, "normalization_type": "band_rms", "normalization_position": "post"},
        {"batch": 2, "opset": 19},
    ),
    "one layer, class token, one patch, pixels in": (
        {"num_layers": 1, "image_size": (8, 4), "ffn_type": "geglu", "qkv_bias": False},
        {"include_preprocessing": True, "opset": 21},
    ),
    "maximum of the tokens, other activation and epsilon": (
        {"pooling": "max", "activation": "gelu_tanh", "epsilon": 1e-3, "normalization_position": "post"},
        {"batch": 1, "include_preprocessing": True, "opset": 17},
    ),
}


@pytest.mark.parametrize(("model", "file"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_a_combination_of_options_is_exported_and_proven_in_every_format(model, file, tmp_path):
    jobs, _ = plan(["savedmodel", "onnx", "tflite"], ["fp32"], **file)
    results = export(trained(**model), tmp_path, jobs)
    assert [(each.artifact.name, each.parity.failures) for each in results] == [
        (name, ()) for name in ("savedmodel-fp32", "onnx-fp32", "tflite-fp32")
    ]
