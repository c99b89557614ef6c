"""What is removed of a ViT, and how many of its parts are chosen: NumPy alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy.compression import CompressOptions, sizes
from vit_deploy.compression.narrowing import Kept, columns_of, narrow
from vit_deploy.compression.sizes import Importance, Sizes, _most_units, asked_sizes, mixes, most_important, rounds
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.cost import macs
from vit_deploy.core.reference import forward
from vit_deploy.core.weights import weight_specs
from vit_deploy.errors import ConfigError

KINDS = {
    "plain": {},
    "gated, norms of heads, scales": {"ffn_type": "swiglu", "qk_norm": True, "layer_scale": True, "qkv_bias": False},
    "one layer scale": {"layer_scale": True, "layer_scale_part": "attention"},
    "distances of each block": {"relative_positions": "table"},
    "scores of each block": {"relative_positions": "scores", "normalization_position": "post"},
    "shared distances, side by side": {"relative_positions": "shared_table", "normalization_position": "parallel"},
    "angles learned by each head": {"rotary": "rope_vit_mixed"},
    "a probe": {"pooling": "map", "rotary": "dinov3", "normalization_position": "res_post"},
    "a probe and a norm": {"pooling": "map", "pool_end": "norm"},
}
KEPT = Kept((0, 2), ((0, 2), (0, 2)), ((1, 4, 5, 9), (0, 2, 3, 10)))


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def silent(request, make_checkpoint) -> Checkpoint:
    """Three blocks of which only what `KEPT` names adds anything; the second adds nothing at all."""
    plain = make_checkpoint(num_layers=3, **request.param)
    config, rng = plain.config, np.random.default_rng(2)
    weights = {
        name: (weight + 0.1 * rng.standard_normal(weight.shape)).astype(np.float32)
        for name, weight in plain.weights.items()
    }
    for block, heads, units in zip(KEPT.blocks, KEPT.heads, KEPT.units, strict=True):
        out, down = (weights[f"block_{block}.{last}.kernel"] for last in ("attention.out", "ffn.down"))
        out[np.setdiff1d(np.arange(len(out)), columns_of(heads, config.head_dim))] = 0
        down[np.setdiff1d(np.arange(len(down)), units)] = 0
    for last in ("attention.out", "ffn.down"):
        for part in ("kernel", "bias"):
            weights[f"block_1.{last}.{part}"][:] = 0
    return dataclasses.replace(plain, weights=weights)


def images_for(checkpoint: Checkpoint) -> np.ndarray:
    shape = (2, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(4).standard_normal(shape)


def test_removing_what_adds_nothing_leaves_the_function(silent):
    kept = KEPT
    if silent.config.normalization_position in ("post", "res_post"):  # where a silent block still has norms
        kept = Kept((0, 1, 2), (KEPT.heads[0],) * 3, (KEPT.units[0], KEPT.units[0], KEPT.units[1]))
    smaller, images = narrow(silent, kept), images_for(silent)
    assert (smaller.config.num_heads, smaller.config.mlp_dim) == (2, 4)
    assert smaller.config.head_dim == silent.config.head_dim
    assert macs(smaller.config) < macs(silent.config)
    np.testing.assert_allclose(forward(smaller, images), forward(silent, images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm", "dynamic_tanh", "band_rms"])
def test_a_narrowed_model_has_the_weights_of_its_config_and_no_ranges(make_checkpoint, kind):
    norms = {"attention_norm": True, "ffn_norm": True, "qk_norm": True, "qk_norm_across_heads": True}
    whole = dataclasses.replace(
        make_checkpoint(num_layers=3, qk_norm_type=kind, **norms), ranges={"head.input": (-1.0, 1.0)}
    )
    smaller = narrow(whole, KEPT)
    same = whole.weights["block_2.attention.query_norm.alpha" if kind == "dynamic_tanh" else "norm.scale"]
    found = smaller.weights["block_1.attention.query_norm.alpha" if kind == "dynamic_tanh" else "norm.scale"]
    np.testing.assert_array_equal(found, same)
    assert {name: spec.shape for name, spec in weight_specs(smaller.config).items()} == {
        name: weight.shape for name, weight in smaller.weights.items()
    }
    assert smaller.ranges == {}
    np.testing.assert_array_equal(
        smaller.weights["block_1.ffn.up.kernel"], whole.weights["block_2.ffn.up.kernel"][:, [0, 2, 3, 10]]
    )


def test_keeping_everything_changes_nothing(make_checkpoint):
    whole = make_checkpoint()
    config = whole.config
    all_of = Sizes.of(config)
    kept = most_important(
        Importance(
            np.ones(config.num_layers),
            np.ones((config.num_layers, config.num_heads)),
            np.ones((config.num_layers, config.mlp_dim)),
        ),
        all_of,
        config,
    )
    assert narrow(whole, kept).digest() == whole.digest()
    assert narrow(whole, kept).config == config


def test_the_most_important_parts_stay_in_their_order(make_checkpoint):
    config = make_checkpoint(num_layers=3).config
    rng = np.random.default_rng(0)
    found = Importance(np.array([1.0, 0.5, 2.0]), rng.random((3, 3)), rng.random((3, config.mlp_dim)))
    kept = most_important(found, Sizes(2, 2, 5), config)
    assert kept.blocks == (0, 2)
    assert [set(heads) for heads in kept.heads] == [set(np.argsort(found.heads[block])[1:]) for block in (0, 2)]
    assert all(units == tuple(sorted(units)) and len(units) == 5 for units in kept.units)
    shared = config.replace(relative_positions="shared_table")
    assert len(set(most_important(found, Sizes(2, 2, 5), shared).heads)) == 1


def test_blocks_that_share_positions_keep_the_same_heads(make_checkpoint):
    whole = make_checkpoint(relative_positions="shared_table", num_layers=2)
    with pytest.raises(ValueError, match="the same heads"):
        narrow(whole, Kept((0, 1), ((0, 1), (0, 2)), ((0,), (1,))))


def test_sizes_are_numbers_or_fractions(make_checkpoint):
    config = make_checkpoint(num_layers=3, mlp_dim=64).config
    asked = CompressOptions("shrink", keep_heads=2, keep_mlp=0.3, keep_layers=0.5)
    assert asked_sizes(asked, config) == Sizes(2, 2, 16)
    assert asked_sizes(CompressOptions("shrink", keep_mlp=5), config) == Sizes(3, 3, 5)
    assert asked_sizes(CompressOptions("shrink", speedup=1.5), config) is None


def test_sizes_that_the_model_does_not_have_are_refused(make_checkpoint):
    config = make_checkpoint(num_layers=3).config
    with pytest.raises(ConfigError, match="--keep-heads is 4, and the model has 3"):
        asked_sizes(CompressOptions("shrink", keep_heads=4), config)
    with pytest.raises(ConfigError, match="all 3 blocks, 3 heads and 20 hidden units would stay"):
        asked_sizes(CompressOptions("shrink", keep_layers=1.0), config)
    with pytest.raises(ConfigError, match=r"no sizes of the blocks give a speed-up of 90\.0"):
        mixes(config, 90.0)


@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0, 3.0])
def test_every_mix_is_as_fast_as_asked_for_by_multiply_adds(make_checkpoint, speedup):
    config = make_checkpoint(num_layers=4, mlp_dim=96, pooling="map", class_token=False).config
    found = mixes(config, speedup)
    whole = Importance(np.ones(4), np.ones((4, 3)), np.ones((4, 96)))
    for chosen in found:
        kept = most_important(whole, chosen, config)
        smaller = narrow(Checkpoint.random(config, 0), kept).config
        assert macs(config) / macs(smaller) >= speedup
    assert len(found) == len(set(found)) > 1


@pytest.mark.parametrize("mlp_dim", [5, 8, 20, 96])
@pytest.mark.parametrize("pooling", ["cls", "map"])
def test_as_many_units_stay_as_a_look_at_every_number_finds(make_checkpoint, mlp_dim, pooling):
    config = make_checkpoint(num_layers=2, mlp_dim=mlp_dim, pooling=pooling, class_token=pooling == "cls").config
    whole = Checkpoint.random(config, 0)
    for layers, heads in ((1, 1), (2, 2), (2, 3)):
        costs = {}
        for units in range(1, mlp_dim + 1):
            if units % 8 == 0 or units == mlp_dim:
                kept = Kept(tuple(range(layers)), (tuple(range(heads)),) * layers, (tuple(range(units)),) * layers)
                costs[units] = macs(narrow(whole, kept).config)
        for most in (0, *(cost + more for cost in costs.values() for more in (-0.5, 0, 0.5)), macs(config) / 1.3):
            fewer = [units for units, cost in costs.items() if cost <= most]
            assert _most_units(config, layers, heads, most) == max(fewer, default=0)


def test_the_sizes_of_a_large_model_are_found_in_few_tries(monkeypatch):
    tried = []
    monkeypatch.setattr(sizes, "macs", lambda config: tried.append(config) or macs(config))
    config = ViTConfig(
        image_size=224, patch_size=16, embed_dim=768, num_heads=12, num_layers=12, mlp_dim=3072, num_classes=1000
    )
    assert mixes(config, 1.5)
    assert len(tried) < 2000


def test_a_gradual_shrinking_removes_the_most_at_first_and_ends_in_what_was_asked_for():
    whole, asked = Sizes(12, 12, 3072), Sizes(8, 6, 1024)
    plan = rounds(CompressOptions("shrink", speedup=2.0, epochs=20), whole, asked)
    assert [epochs for _, epochs in plan] == [2, 2, 2, 14]
    units = [each.mlp_dim for each, _ in plan]
    assert np.all(np.diff(units, prepend=3072) < 0) and np.all(np.diff(units, prepend=3072, n=2) > 0)
    assert plan[-1][0] == asked
    assert rounds(CompressOptions("shrink", speedup=2.0, schedule="constant"), whole, asked) == [(asked, 20)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "shrink needs a speedup, or what stays as keep_heads, keep_mlp or keep_layers"),
        ({"speedup": 1.5, "keep_heads": 2}, "speedup is 1.5 and keep_heads 2; expected one or the other"),
        ({"speedup": 0.5}, "speedup is 0.5; expected more than 1"),
        ({"keep_heads": 0}, "keep_heads is 0; expected a number from 1, or a fraction up to 1.0"),
        ({"keep_mlp": 1.5}, "keep_mlp is 1.5; expected a number from 1, or a fraction up to 1.0"),
        ({"speedup": 1.5, "sparsity": 0.9}, "sparsity is of prune, and the method is shrink"),
        ({"speedup": 1.5, "keep": ("head",)}, "keep is head; of shrink, say what stays with --keep-layers"),
    ],
)
def test_sizes_that_cannot_be_are_refused(given, said):
    with pytest.raises(ConfigError) as error:
        CompressOptions("shrink", **given)
    assert said in error.value.message


def test_sizes_are_of_no_other_method():
    with pytest.raises(ConfigError, match="speedup is of shrink, and the method is prune"):
        CompressOptions("prune", speedup=2.0)


def test_what_was_asked_for_is_remembered():
    facts = CompressOptions("shrink", keep_heads=2).facts()
    assert facts["keep_heads"] == 2 and "speedup" not in facts and "keep_mlp" not in facts
    options = CompressOptions("shrink", keep_heads=1, keep_layers=1.0, distill_tokens=0.5)
    again = CompressOptions.from_dict(options.to_dict())
    assert again == options and isinstance(again.keep_heads, int) and isinstance(again.keep_layers, float)
