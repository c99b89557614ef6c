from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from tests.exporters.tflite_files import opened
from tests.exporters.variants import exported, trained
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.folding import fold_layer_scales, fold_norms
from vit_deploy.exporters.mean_centering import centre_stream
from vit_deploy.exporters.tflite.export import TFLiteExporter

CENTRED = {
    "class token": {},
    "gated": {"ffn_type": "swiglu"},
    "layer scales": {"layer_scale": True},
    "registers and distillation": {"distillation_token": True, "register_tokens": 2, "pooling": "cls_distillation"},
    "mean, then a norm": {"pooling": "mean", "norm_after_pooling": True},
    "no class token": {"class_token": False, "pooling": "mean", "norm_after_pooling": True},
}
LEFT = {
    "post-norm": {"normalization_position": "post"},
    "RMS": {"normalization_type": "rms_norm"},
    "tanh": {"normalization_type": "dynamic_tanh"},
    "norms of queries and keys": {"qk_norm": True},
    "norm in front": {"pre_norm": True},
    "probe": {"pooling": "map"},
    "maximum, then a norm": {"pooling": "max", "norm_after_pooling": True},
    "class and mean, then a norm": {"pooling": "cls_mean", "norm_after_pooling": True},
    "mean of a norm with a bias": {"pooling": "mean"},
    "a sequence": {"include_top": False, "pooling": None},
}


def folded(**changes) -> Checkpoint:
    return fold_norms(fold_layer_scales(trained(**changes)))


def images_for(checkpoint):
    config = checkpoint.config
    return np.random.default_rng(3).standard_normal((2, *config.image_size, config.channels)).astype(np.float32)


@pytest.mark.parametrize("changes", CENTRED.values(), ids=CENTRED)
def test_a_centred_stream_has_no_mean_and_gives_the_same_answers(changes):
    before = folded(**changes)
    after = centre_stream(before)
    images, means = images_for(before), []

    def hook(name, values):
        if name not in ("norm", "head"):
            means.append(np.abs(values.mean(axis=-1)).max() / np.abs(values).max())

    answers = forward(after, images, hook=hook)
    expected = forward(before, images)
    assert after.config.normalization_type == "rms_norm"
    assert len(means) == 2 + 2 * before.config.num_layers
    assert max(means) < 1e-7
    np.testing.assert_allclose(answers, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("changes", LEFT.values(), ids=LEFT)
def test_other_streams_are_left_as_they_are(changes):
    checkpoint = folded(**changes)
    assert centre_stream(checkpoint) is checkpoint


def changed(checkpoint, change, name="block_1.ffn.down.kernel") -> Checkpoint:
    weights = dict(checkpoint.weights)
    weights[name] = change(weights[name].copy())
    return dataclasses.replace(checkpoint, weights=weights)


def pruned(kernel):
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.6)] = 0
    return kernel


def clustered(kernel):
    step = np.abs(kernel).max() / 8
    return (np.rint(kernel / step) * step + step / 3).astype(np.float32)


@pytest.mark.parametrize("name", ["patch_embed.kernel", "block_0.attention.out.kernel", "block_1.ffn.down.kernel"])
@pytest.mark.parametrize("change", [pruned, clustered])
def test_zeros_and_clusters_of_kernels_stay(change, name):
    checkpoint = changed(folded(), change, name)
    assert centre_stream(checkpoint) is checkpoint


def test_kernels_that_came_in_half_precision_are_not_taken_for_clustered():
    checkpoint = changed(
        folded(embed_dim=48, num_heads=3, mlp_dim=96), lambda kernel: kernel.astype(np.float16).astype(np.float32)
    )
    assert centre_stream(checkpoint).config.normalization_type == "rms_norm"


def test_what_ranges_were_learned_for_stays():
    checkpoint = dataclasses.replace(folded(), ranges={"block_0.ffn.down.output": (-1.0, 2.0)})
    assert centre_stream(checkpoint) is checkpoint


def test_the_norms_of_a_file_take_no_mean_away(tmp_path):
    made = exported(TFLiteExporter(), trained(), tmp_path, ExportOptions(batch=1))
    counts = Counter(detail["op_name"] for detail in opened(made.model_path)._get_ops_details())
    norms = 2 * made.config.num_layers + 1
    assert (counts["MEAN"], counts["RSQRT"], counts["SUB"], counts["SQUARED_DIFFERENCE"]) == (norms, norms, 0, 0)
