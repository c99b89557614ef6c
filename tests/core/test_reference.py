"""The reference against a definition that shares no line with it, in loops, and what it promises beside its numbers."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.features import FAMILIES
from tests.loops import loop_forward
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import forward

Array = NDArray[Any]

VARIANTS: list[dict[str, Any]] = [
    *(
        {"normalization_type": kind, "normalization_position": position}
        for kind, position in itertools.product(NormalizationType, ("pre", "post"))
    ),
    *({"ffn_type": kind} for kind in FFNType),
    *({"activation": kind} for kind in Activation),
    *({"pooling": kind, "include_top": top} for kind in (None, "cls", "mean", "max") for top in (True, False)),
    {"qkv_bias": False},
    {"epsilon": 0.01},
    {"epsilon": 0.01, "normalization_type": "band_rms"},
    {"channels": 1, "image_size": (16, 4), "num_layers": 1, "num_heads": 1},
    *FAMILIES.values(),
]


def test_a_head_with_a_norm_of_its_own_gives_cosines(make_checkpoint: Callable[..., Checkpoint], images: Array) -> None:
    changes = {"pooling": "cls", "pre_logits_dim": 7, "pre_logits_linear": True}
    headed = make_checkpoint(**changes, head_norm=True)
    features = forward(make_checkpoint(**changes, include_top=False), images)
    kernel = headed.weights["head.kernel"].astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True) * np.linalg.norm(kernel, axis=0)
    logits = forward(headed, images) - headed.weights["head.bias"]
    np.testing.assert_allclose(
        logits / np.linalg.norm(kernel, axis=0) / np.sqrt(7), features @ kernel / lengths, atol=1e-7
    )


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_reference_is_what_loops_over_tokens_and_heads_compute(
    make_checkpoint: Callable[..., Checkpoint], changes: dict[str, Any]
) -> None:
    checkpoint = make_checkpoint(**({"image_size": (16, 12)} | changes))
    config = checkpoint.config
    images = np.random.default_rng(2).standard_normal((2, *config.image_size, config.channels))
    expected = np.stack([loop_forward(checkpoint, image) for image in images])
    found = forward(checkpoint, images)
    assert found.dtype == np.float64
    assert found.shape == (2, *config.output_shape)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


def test_the_two_images_of_a_batch_do_not_touch_each_other(checkpoint: Checkpoint, images: Array) -> None:
    together = forward(checkpoint, images)
    alone = np.concatenate([forward(checkpoint, images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(together, alone, rtol=1e-12, atol=1e-14)


def test_the_taps_are_called_in_the_order_of_the_network(checkpoint: Checkpoint, images: Array) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    forward(checkpoint, images, hook=lambda name, values: seen.update({name: values.shape}))
    assert seen == {
        "patch_embed": (3, 24, 12),
        "pos_embed": (3, 25, 12),
        "block_0.attention": (3, 25, 12),
        "block_0.ffn": (3, 25, 12),
        "block_1.attention": (3, 25, 12),
        "block_1.ffn": (3, 25, 12),
        "norm": (3, 25, 12),
        "head": (3, 5),
    }
    assert list(seen)[2] == "block_0.attention"


def test_the_tap_of_a_norm_after_pooling_is_a_vector(make_checkpoint: Callable[..., Checkpoint], images: Array) -> None:
    checkpoint = make_checkpoint(norm_after_pooling=True, pooling="cls_mean", pre_logits_dim=7, pre_norm=True)
    seen: dict[str, tuple[int, ...]] = {}
    forward(checkpoint, images, hook=lambda name, values: seen.update({name: values.shape}))
    assert list(seen)[-3:] == ["block_1.ffn", "norm", "head"]
    assert (seen["pos_embed"], seen["norm"], seen["head"]) == ((3, 25, 12), (3, 24), (3, 5))


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())))
def test_in_float32_it_stays_float32_and_near_the_definition(
    make_checkpoint: Callable[..., Checkpoint], changes: dict[str, Any]
) -> None:
    checkpoint = make_checkpoint(**changes)
    config = checkpoint.config
    images = np.random.default_rng(2).standard_normal((2, *config.image_size, config.channels)).astype(np.float32)
    kinds: set[np.dtype[Any]] = set()
    single = forward(checkpoint, images, np.float32, hook=lambda name, values: kinds.add(values.dtype))
    double = forward(checkpoint, images)
    assert kinds == {np.dtype(np.float32)}
    assert 0 < np.abs(single - double).max() <= 2e-5 * max(1, np.abs(double).max())


def test_images_of_another_size_are_refused_before_any_work(checkpoint: Checkpoint) -> None:
    with pytest.raises(ValueError, match=r"images are \(32, 24, 3\), the model takes \(24, 32, 3\)"):
        forward(checkpoint, np.zeros((1, 32, 24, 3)))


def test_one_block_of_weights_is_in_memory_at_a_time() -> None:
    config = ViTConfig(
        image_size=(8, 4), patch_size=(8, 4), embed_dim=128, num_heads=2, num_layers=6, mlp_dim=512, num_classes=3
    )
    checkpoint = Checkpoint.random(config, 0)
    block = 8 * sum(weight.size for name, weight in checkpoint.weights.items() if name.startswith("block_0."))
    images = np.zeros((1, 8, 4, 3), np.float32)
    forward(checkpoint, images)  # the table of erf is made once
    tracemalloc.start()
    forward(checkpoint, images)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert block < peak < 1.2 * block
