"""Parameters of a model, and the multiplications with additions that it takes."""

from __future__ import annotations

from typing import Any

import pytest

from vit_deploy.core import cost
from vit_deploy.core.config import ViTConfig

# Dosovitskiy et al. 2020 and timm's tables, in millions.
PUBLISHED = {
    ("tiny", 16): 5.72,
    ("small", 16): 22.05,
    ("base", 16): 86.57,
    ("large", 16): 304.33,
    ("huge", 14): 632.05,
}


@pytest.mark.parametrize(("scale", "patch"), PUBLISHED)
def test_a_scale_has_the_published_number_of_parameters(scale: str, patch: int) -> None:
    millions = cost.num_parameters(ViTConfig.from_scale(scale, patch_size=patch)) / 1e6
    assert round(millions, 2) == PUBLISHED[scale, patch]


def test_the_exact_counts_are_those_of_the_common_implementations() -> None:
    # timm's vit_{tiny,small,base,large}_patch16_224 and torchvision's vit_b_16, vit_l_16, counted there.
    exact = {"tiny": 5_717_416, "small": 22_050_664, "base": 86_567_656, "large": 304_326_632}
    assert {scale: cost.num_parameters(ViTConfig.from_scale(scale)) for scale in exact} == exact
    assert cost.num_parameters(ViTConfig.from_scale("huge", patch_size=14)) == 632_045_800


def test_the_multiply_accumulates_of_the_features_are_those_of_a_hand_count(config: ViTConfig) -> None:
    def grown(**changes: Any) -> int:
        return cost.macs(config.replace(**changes)) - cost.macs(config)

    token = 2 * (4 * 12 * 12 + 2 * 12 * 20)  # two blocks: the projections of one token more
    assert grown(register_tokens=1) == token + 2 * 3 * 4 * 2 * (26 * 26 - 25 * 25)
    assert grown(class_token=False, pooling="mean") == -token + 2 * 3 * 4 * 2 * (24 * 24 - 25 * 25)
    assert grown(layer_scale=True, qk_norm=True, pre_norm=True, norm_after_pooling=True) == 0
    assert grown(pooling="cls_mean") == 12 * 5
    assert grown(pre_logits_dim=7) == 12 * 7 + 7 * 5 - 12 * 5
    keys_and_values, products = 2 * 25 * 12 * 12, 2 * 25 * 12
    assert grown(pooling="map") == keys_and_values + products + 2 * 12 * 12 + 2 * 12 * 20


def test_the_multiply_accumulates_of_the_base_model_are_the_published_ones() -> None:
    # The usual tables print 17.6 G for ViT-B/16 at 224.
    assert round(cost.macs(ViTConfig.from_scale("base")) / 1e9, 1) == 17.6


def test_the_multiply_accumulates_are_those_of_a_hand_count(config: ViTConfig) -> None:
    patches = 24 * (8 * 4 * 3) * 12
    projections = 4 * 25 * 12 * 12
    products = 3 * (25 * 4 * 25) * 2
    feed_forward = 2 * 25 * 12 * 20
    assert cost.macs(config) == patches + 2 * (projections + products + feed_forward) + 12 * 5
    gated = 2 * (projections + products + 3 * 25 * 12 * 20)
    assert cost.macs(config.replace(ffn_type="glu", include_top=False)) == patches + gated
