"""Options that are each fine alone, several at once: the whole way to a published and proven artifact."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.exporters.tflite_files import left_out, opened
from tests.exporters.variants import trained
from tests.features import FAMILIES
from vit_deploy.core.choices import FFNType, NormalizationPosition, NormalizationType, Pooling
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export

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
    "registers and scales, pixels in, channels first, one image": (
        FAMILIES["DINOv2 with registers"],
        {"batch": 1, "layout": "nchw", "include_preprocessing": True, "opset": 17},
    ),
    "no class token, a probe, gray pixels in": (
        FAMILIES["SigLIP"] | {"channels": 1},
        {"include_preprocessing": True, "opset": 21},
    ),
    "two tokens of many, two images": (FAMILIES["band RMS, both tokens"], {"batch": 2, "layout": "nchw", "opset": 18}),
    "maximum of the tokens, other activation and epsilon": (
        {"pooling": "max", "activation": "gelu_tanh", "epsilon": 1e-3, "normalization_position": "post"},
        {"batch": 1, "include_preprocessing": True, "opset": 17},
    ),
}


# The function that a SavedModel keeps is traced as that of a TFLite file is.
@pytest.mark.parametrize(
    "formats", [("onnx", "tflite"), pytest.param(("savedmodel",), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_of_options_is_exported_and_proven_in_every_format(name, formats, tmp_path):
    model, file = COMBINATIONS[name]
    if "onnx" not in formats:
        file = {key: value for key, value in file.items() if key not in ("opset", "layout")}  # which are ONNX's alone
    jobs, _ = plan(formats, ["fp32"], **file)
    results = export(trained(**model), tmp_path, jobs)
    assert [(result.artifact.name, result.parity.failures) for result in results] == [
        (f"{format}-fp32", ()) for format in formats
    ]


@pytest.mark.slow
@pytest.mark.parametrize("position", NormalizationPosition)
@pytest.mark.parametrize("kind", NormalizationType)
def test_any_combination_of_features_is_exported_and_proven_in_every_format(kind, position, tmp_path):
    rng = np.random.default_rng([*kind.encode(), *position.encode()])
    for pooling, ffn in itertools.product([None, *Pooling], [FFNType.MLP, FFNType.SWIGLU]):
        flags = ("layer_scale", "qk_norm", "pre_norm", "norm_after_pooling", "qkv_bias", "include_top")
        model = {flag: bool(rng.integers(2)) for flag in flags} | {"pooling": pooling, "ffn_type": ffn}
        model |= {"normalization_type": kind, "normalization_position": position}
        model |= {"register_tokens": int(rng.integers(3)), "pre_logits_dim": int(rng.choice([0, 7]))}
        both = pooling is Pooling.CLS_DISTILLATION or bool(rng.integers(2))
        by_class = pooling in (Pooling.CLS, Pooling.CLS_MEAN) or (pooling is None and model["include_top"])
        model |= {"class_token": both or by_class or bool(rng.integers(2)), "distillation_token": both}
        if pooling is None and not model["include_top"]:
            model |= {"norm_after_pooling": False, "pre_logits_dim": 0}
        file = {"batch": int(rng.integers(1, 4)), "layout": str(rng.choice(["nhwc", "nchw"]))}
        file |= {"opset": int(rng.integers(17, 22)), "include_preprocessing": bool(rng.integers(2))}
        jobs, _ = plan(["savedmodel", "onnx", "tflite"], ["fp32"], **file)

        results = export(trained(**model), tmp_path / f"{pooling}-{ffn}", jobs)

        assert [result.parity.failures for result in results] == [(), (), ()], (model, file)
        assert left_out(opened(results[-1].artifact.model_path)) == [], (model, file)
