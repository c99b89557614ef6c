"""Rotary positions: where patches are, how far pairs are turned, and what a config may say of it."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest

from tests.rotary_loops import token_angles
from vit_deploy.core import rotary_angles
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.resize import resize
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.core.weights import learned_positions, weight_specs
from vit_deploy.errors import ConfigError

SMALL = {
    "image_size": (24, 16),
    "patch_size": (8, 4),
    "embed_dim": 24,
    "num_heads": 2,
    "num_layers": 2,
    "mlp_dim": 20,
    "num_classes": 5,
    "register_tokens": 1,
}


@pytest.fixture
def config():
    return ViTConfig(**SMALL)


@pytest.mark.parametrize("convention", RotaryConvention)
def test_the_angles_are_those_of_every_patch_pair_and_head_alone(convention, config):
    config = config.replace(rotary=convention)
    shapes = config.rotary.weight_shapes(config.num_heads, config.head_dim)
    own = {name: np.random.default_rng(1).standard_normal(shape) for name, shape in shapes.items()}
    found = np.broadcast_to(
        rotary_angles.angles(config, own), (config.num_heads, config.sequence_length, config.head_dim // 2)
    )
    for head in range(config.num_heads):
        expected = np.array(list(token_angles(config, head, own)))
        np.testing.assert_allclose(found[head], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("convention", [kind for kind in RotaryConvention if kind is not RotaryConvention.MLCD])
def test_a_score_depends_on_where_two_patches_are_to_each_other(convention, config):
    """Turned by their positions, the same query and key have the same product a step further along either axis."""
    config = config.replace(rotary=convention)
    shapes = config.rotary.weight_shapes(config.num_heads, config.head_dim)
    rng = np.random.default_rng(1)
    cosine, sine = rotary_angles.tables(
        rotary_angles.angles(config, {name: rng.standard_normal(shape) for name, shape in shapes.items()})
    )
    query, key = rng.standard_normal((2, config.head_dim))
    turned = [x * cosine + rotary_angles.swapped(x) * sine for x in (query, key)]
    rows, columns = config.grid
    of_patches = [
        np.atleast_3d(x.T).T[..., -rows * columns :, :].reshape(-1, rows, columns, x.shape[-1]) for x in turned
    ]
    scores = np.einsum("hrcd,hsed->hrcse", *of_patches)
    np.testing.assert_allclose(scores[:, :-1, :, :-1], scores[:, 1:, :, 1:], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(scores[:, :, :-1, :, :-1], scores[:, :, 1:, :, 1:], rtol=1e-10, atol=1e-10)
    assert np.ptp(scores) > 1


def test_prefix_tokens_are_not_turned_but_for_a_class_token_that_learns_it(config):
    assert not rotary_angles.angles(config.replace(rotary="dinov3"))[:2].any()
    learned = {"class_angles": np.arange(6.0)[None]}
    found = rotary_angles.angles(config.replace(rotary="mlcd"), learned)
    np.testing.assert_array_equal(found[0], np.arange(6.0))
    assert not found[1].any()


def test_periods_of_dinov3_are_rounded_as_bfloat16_is():
    values = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * 100
    np.testing.assert_array_equal(
        rotary_angles.as_bfloat16(values), values.astype(ml_dtypes.bfloat16).astype(np.float64)
    )
    rounded, exact = (rotary_angles.frequencies(Rotary(name), 64)[0] for name in ("dinov3", "dinov3_float32"))
    assert 0 < np.abs(rounded / exact - 1).max() < 2**-8


def test_coordinates_of_dinov3_are_those_of_the_centres_from_minus_one_to_one():
    places = rotary_angles.coordinates(Rotary("dinov3"), (2, 4), class_token=True)
    np.testing.assert_allclose(places[0], [-0.5, -0.75])
    np.testing.assert_allclose(places[-1], [0.5, 0.75])
    np.testing.assert_allclose(places[1], [-0.5, -0.25])


def test_coordinates_of_eva_are_scaled_to_the_grid_it_was_trained_on():
    places = rotary_angles.coordinates(Rotary("eva", reference_grid=(16, 8)), (4, 2), class_token=True)
    np.testing.assert_allclose(places[-1], [12, 4])
    np.testing.assert_allclose(rotary_angles.coordinates(Rotary("eva"), (4, 2), class_token=True)[-1], [3, 1])


def test_perception_encoder_counts_from_one_behind_a_class_token():
    for class_token, first in ((True, 1), (False, 0)):
        assert rotary_angles.coordinates(Rotary("pe"), (2, 3), class_token=class_token)[0].tolist() == [first, first]


def test_pairs_side_by_side_become_halves_without_a_change_of_any_score():
    rng = np.random.default_rng(2)
    query, key, angles = rng.standard_normal((5, 8)), rng.standard_normal((5, 8)), rng.standard_normal((5, 4))
    order = rotary_angles.halves_of_pairs(8)

    def side_by_side(x):
        pairs = (x[:, ::2] + 1j * x[:, 1::2]) * np.exp(1j * angles)
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(5, 8)

    cosine, sine = rotary_angles.tables(angles)
    halves = [x[:, order] * cosine + rotary_angles.swapped(x[:, order]) * sine for x in (query, key)]
    np.testing.assert_allclose(halves[0] @ halves[1].T, side_by_side(query) @ side_by_side(key).T, atol=1e-12)


def test_a_config_with_rotary_positions_goes_through_json(config):
    for given in ("eva", {"convention": "eva", "reference_grid": [16, 12], "base": 100}, Rotary("rope_vit_mixed")):
        config = config.replace(rotary=given)
        assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert hash(config) == hash(config.replace())
    assert config.replace(rotary=None).to_dict()["rotary"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dino", "rotary.convention is 'dino'; expected one of dinov3, "),
        (7, "rotary is 7; expected the name of a convention"),
        ({"base": 100}, "rotary has no convention"),
        ({"convention": "eva", "theta": 3}, "unknown fields of rotary: theta"),
        ({"convention": "eva", "base": 0.5}, r"rotary.base is 0.5; expected a number above 1"),
        ({"convention": "eva", "base": math.inf}, r"rotary.base is inf; expected a number above 1"),
        ({"convention": "eva", "reference_grid": 16}, r"rotary.reference_grid is 16; expected patches along"),
        ({"convention": "dinov3", "reference_grid": (4, 4)}, "dinov3 has coordinates of its own"),
    ],
)
def test_rotary_positions_that_no_model_has_are_refused(given, message, config):
    with pytest.raises(ConfigError, match=message):
        config.replace(rotary=given)


def test_heads_that_cannot_be_divided_are_refused(config):
    with pytest.raises(ConfigError, match="rotary positions divide a head in 4, and head_dim is 6"):
        config.replace(num_heads=4, rotary="eva")
    assert config.replace(num_heads=4, rotary="rope_vit_mixed").head_dim == 6


def test_a_learned_angle_of_a_class_token_needs_one(config):
    with pytest.raises(ConfigError, match="mlcd, which turns the class token, and class_token is False"):
        config.replace(rotary="mlcd", class_token=False, pooling="mean")
    with pytest.raises(ConfigError, match="mlcd, which has no distillation token"):
        config.replace(rotary="mlcd", distillation_token=True)


def test_what_is_learned_of_positions_is_a_weight_of_every_block(config):
    config = config.replace(rotary="rope_vit_mixed")
    assert learned_positions(config) == ("block_0.attention.frequencies", "block_1.attention.frequencies")
    assert weight_specs(config)["block_1.attention.frequencies"].shape == (2, 2, 6)
    assert learned_positions(config.replace(rotary="dinov3")) == ()


def test_another_size_has_coordinates_of_its_own(make_checkpoint):
    checkpoint = make_checkpoint(rotary={"convention": "eva", "reference_grid": (3, 8)})
    larger = resize(checkpoint, (48, 64))
    assert larger.config.rotary == checkpoint.config.rotary
    places = rotary_angles.coordinates(larger.config.rotary, larger.config.grid, class_token=True)
    assert places.max(axis=0).tolist() == [2.5, 7.5]
