"""What resizing changes in a checkpoint, what it leaves, and that the function is the original's at the new size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.peers.timm_models import timm_model
from vit_deploy.core.choices import Pooling
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.reference import forward, patch_embed
from vit_deploy.core.resampling import bicubic_antialias, bilinear, resample
from vit_deploy.core.resize import (
    Convention,
    as_convention,
    convention_of,
    resize,
    resized_positions,
    resized_preprocess,
)
from vit_deploy.errors import ConfigError
from vit_deploy.verification.drift import drift, same_scenes

CHANGED = {"pos_embed.table", "patch_embed.kernel"}


def of_family(checkpoint, *families):
    steps = tuple(Step("import", {"family": family}) for family in families)
    return dataclasses.replace(checkpoint, provenance=(Step("random", {"seed": 3}), *steps, Step("fold", {})))


def test_only_the_position_table_changes_with_the_image(make_checkpoint):
    before = make_checkpoint()
    after = resize(before, (40, 20))
    assert after.config == before.config.replace(image_size=(40, 20))
    assert after.config.grid == (5, 5)
    assert after.weights["pos_embed.table"].shape == (1 + 25, 12)
    assert all(after.weights[name] is before.weights[name] for name in before.weights if name != "pos_embed.table")


def test_only_table_and_kernel_change_with_image_and_patch(make_checkpoint):
    before = make_checkpoint()
    after = resize(before, (40, 30), (10, 6))
    assert after.weights["patch_embed.kernel"].shape == (10, 6, 3, 12)
    assert after.weights["pos_embed.table"].shape == (1 + 20, 12)
    assert all(after.weights[name] is before.weights[name] for name in before.weights if name not in CHANGED)


def test_another_patch_alone_keeps_the_image_and_changes_the_grid(make_checkpoint):
    after = resize(make_checkpoint(), patch_size=(4, 8))
    assert after.config.image_size == (24, 32)
    assert after.config.grid == (6, 4)


def test_a_norm_of_pixels_holds_for_one_size_of_patch(make_checkpoint):
    checkpoint = make_checkpoint(pixel_norm=True)
    assert resize(checkpoint, image_size=(48, 64)).config.image_size == (48, 64)
    for changes in ({"pixel_norm": True}, {"patch_padding": 1}):
        with pytest.raises(ConfigError, match="so that its patches have one size"):
            resize(make_checkpoint(**changes), patch_size=(4, 4))


def test_the_same_sizes_give_the_checkpoint_back(make_checkpoint):
    checkpoint = make_checkpoint()
    assert resize(checkpoint) is checkpoint
    assert resize(checkpoint, (24, 32), (8, 4), Convention.DINOV2) is checkpoint


@pytest.mark.parametrize("like", Convention)
def test_a_grid_that_stays_keeps_its_positions_whatever_the_convention(make_checkpoint, like):
    before = make_checkpoint()
    after = resize(before, (48, 64), (16, 8), like)
    assert np.array_equal(after.weights["pos_embed.table"], before.weights["pos_embed.table"])
    assert after.weights["patch_embed.kernel"].shape == (16, 8, 3, 12)


@pytest.mark.parametrize("like", Convention)
def test_as_many_tokens_in_another_grid_are_resampled(make_checkpoint, like):
    before = make_checkpoint(image_size=(112, 56))
    after = resize(before, (56, 112), like=like)
    assert before.config.grid == (14, 14)
    assert after.config.grid == (7, 28)
    table, resized = (each.weights["pos_embed.table"] for each in (before, after))
    assert resized.shape == table.shape
    assert np.abs(resized[1:] - table[1:]).max() > 0.1 * np.abs(table).max()


@given(st.integers(0, 6), st.sampled_from([bilinear, bicubic_antialias]))
def test_prefix_tokens_are_untouched(prefix, kind):
    table = np.random.default_rng(0).standard_normal((prefix + 12, 5)).astype(np.float32)
    resized = resized_positions(table, (3, 4), (2, 7), kind, prefix)
    assert np.array_equal(resized[:prefix], table[:prefix])
    assert np.array_equal(resized[prefix:].reshape(2, 7, 5), resample(table[prefix:].reshape(3, 4, 5), (2, 7), kind))


def test_the_step_is_recorded_with_sizes_convention_and_digest(make_checkpoint):
    before = make_checkpoint()
    after = resize(before, (40, 20), like=Convention.GOOGLE)
    again = resize(after, patch_size=(4, 5))
    assert after.provenance[:-1] == before.provenance
    assert after.provenance[-1].to_dict() == {
        "action": "resize",
        "from": {"image_size": [24, 32], "patch_size": [8, 4]},
        "to": {"image_size": [40, 20], "patch_size": [8, 4]},
        "convention": "google",
        "digest_before": before.digest(),
    }
    assert again.provenance[:-1] == after.provenance
    assert again.provenance[-1].facts["digest_before"] == after.digest() != before.digest()


def test_the_convention_is_that_of_the_last_family_recorded_else_timms(make_checkpoint):
    checkpoint = make_checkpoint()
    assert convention_of(checkpoint) is Convention.TIMM
    for family in Convention:
        assert convention_of(of_family(checkpoint, family)) is family
    assert convention_of(of_family(checkpoint, "keras")) is Convention.TIMM
    assert convention_of(of_family(checkpoint, "timm", "google")) is Convention.GOOGLE
    assert convention_of(of_family(checkpoint, "google"), Convention.HUGGINGFACE) is Convention.HUGGINGFACE


def test_the_family_decides_how_a_checkpoint_is_resized(make_checkpoint):
    checkpoint = make_checkpoint()
    followed = resize(of_family(checkpoint, "huggingface"), (40, 20))
    asked = resize(checkpoint, (40, 20), like=Convention.HUGGINGFACE)
    assert followed.digest() == asked.digest() != resize(checkpoint, (40, 20)).digest()


def test_dinov2_with_registers_has_a_convention_of_its_own(make_checkpoint):
    model = make_checkpoint(register_tokens=4).with_step("import", family="dinov2")
    assert convention_of(model) is Convention.DINOV2_REGISTERS
    assert convention_of(model, Convention.TIMM) is Convention.TIMM
    assert convention_of(make_checkpoint(), Convention.DINOV2) is Convention.DINOV2


def test_the_digests_before_and_after_are_those_of_the_weights(make_checkpoint):
    before = make_checkpoint()
    after = resize(before, (48, 32))
    assert after.digest() == dataclasses.replace(after).digest() != before.digest()
    assert after.provenance[-1].facts["digest_before"] == before.digest()


def test_an_unknown_convention_is_an_error_with_the_one_that_was_meant():
    assert as_convention("dinov2-registers") is Convention.DINOV2_REGISTERS
    with pytest.raises(ConfigError) as error:
        as_convention("hugginface")
    assert str(error.value) == "unknown convention 'hugginface'\n  fix: did you mean 'huggingface'?"


def test_an_image_that_no_patches_fill_is_an_error(make_checkpoint):
    with pytest.raises(ConfigError, match="height 25 is not a multiple of 8"):
        resize(make_checkpoint(), (25, 32))


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (Preprocess(resize=None), {}),
        (Preprocess(resize=248, crop=True), {"resize": (425, 567), "keep_aspect": True}),
        (Preprocess(resize=224), {"resize": 384}),
        (Preprocess(resize=(248, 256), crop=True), {"resize": (425, 585)}),
        (Preprocess(resize=(248, 256), crop=True, keep_aspect=True), {"resize": (425, 585)}),
    ],
)
def test_the_recorded_resize_is_scaled_as_the_input_is(recorded, expected):
    resized = resized_preprocess(recorded, (224, 224), (384, 512))
    assert resized == dataclasses.replace(recorded, **expected)


def test_a_shorter_edge_stays_one_where_both_sides_are_scaled_alike():
    recorded = Preprocess(resize=248, crop=True)
    assert resized_preprocess(recorded, (224, 224), (448, 448)) == Preprocess(resize=496, crop=True)


@given(*[st.integers(8, 600)] * 5)
def test_a_crop_that_lay_within_every_image_still_does(height, width, new_height, new_width, margin):
    recorded = Preprocess(resize=max(height, width) + margin, crop=True)
    resized = resized_preprocess(recorded, (height, width), (new_height, new_width))
    sides = resized.resize if resized.keep_aspect else (resized.resize, resized.resize)
    assert all(np.array(sides) >= (new_height, new_width))


def test_the_preprocessing_goes_with_the_checkpoint(make_checkpoint):
    before = dataclasses.replace(make_checkpoint(), preprocess=Preprocess(resize=(24, 32)), labels=tuple("abcde"))
    after = resize(before, (48, 32))
    assert after.preprocess == Preprocess(resize=(48, 32))
    assert after.labels == before.labels


@pytest.mark.parametrize(("like", "kind"), [(Convention.TIMM, bicubic_antialias), (Convention.GOOGLE, bilinear)])
def test_a_larger_patch_and_image_have_the_same_embedding_of_each_patch(make_checkpoint, like, kind):
    before = make_checkpoint()
    after = resize(before, (36, 56), (12, 7), like)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((24, 32, 3)).astype(np.float32)
    larger = np.zeros((36, 56, 3))
    for row, column in np.ndindex(3, 8):
        patch = image[row * 8 : row * 8 + 8, column * 4 : column * 4 + 4]
        larger[row * 12 : row * 12 + 12, column * 7 : column * 7 + 7] = resample(patch, (12, 7), kind)

    def embedded(checkpoint, pixels):
        part = {name: checkpoint.weights[f"patch_embed.{name}"].astype(np.float64) for name in ("kernel", "bias")}
        return patch_embed(pixels[None].astype(np.float64), part, checkpoint.config)

    assert (
        np.abs(embedded(after, larger) - embedded(before, image)).max() < 1e-5 * np.abs(embedded(before, image)).max()
    )
    assert np.abs(forward(after, larger[None]) - forward(before, image[None])).max() < 1e-4


@pytest.mark.peers
@pytest.mark.parametrize(
    ("image_size", "patch_size"), [((40, 20), None), ((12, 48), None), (None, (4, 8)), ((40, 30), (10, 6))]
)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_resized_checkpoint_computes_what_timms_own_resized_model_does(
    make_checkpoint, timm, image_size, patch_size, pooling
):
    import torch

    before = make_checkpoint(pooling=pooling, image_size=(24, 32), patch_size=(4, 4))
    after = resize(before, image_size, patch_size)
    model = timm_model(timm, before)
    model.set_input_size(img_size=image_size, patch_size=patch_size)
    images = np.random.default_rng(0).standard_normal((2, *after.config.image_size, 3))
    with torch.no_grad():
        theirs = model(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert np.abs(forward(after, images) - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_the_sample_images_show_the_same_scenes_at_both_sizes(make_checkpoint):
    config = make_checkpoint(channels=1).config
    small, large = same_scenes(config, config.replace(image_size=(48, 48)))
    assert small.shape == (8, 24, 32, 1)
    assert large.shape == (8, 48, 48, 1)
    assert small.dtype == large.dtype == np.uint8
    shrunk = np.stack([resample(each.astype(np.float32), (24, 32), bicubic_antialias) for each in large])
    differences = np.abs(shrunk - small.astype(np.float32)).mean(axis=(1, 2, 3))
    others = np.abs(shrunk - np.roll(small, 1, axis=0).astype(np.float32)).mean(axis=(1, 2, 3))
    assert (differences < 3).all()
    assert (others > 5 * differences).all()


def test_features_do_not_drift_to_the_same_checkpoint(make_checkpoint):
    checkpoint = make_checkpoint()
    found = drift(checkpoint, checkpoint)
    assert np.allclose(found.cosines, 1)
    assert found.cosine_min <= found.cosine_mean <= 1 + 1e-9
    assert found.top1_agreement == 1
    assert found.to_dict()["images"] == len(found.cosines) == 8


def test_features_drift_less_when_positions_are_resampled_than_when_they_are_lost(make_checkpoint):
    before = make_checkpoint(image_size=(48, 64))
    after = resize(before, (64, 64))
    table = after.weights["pos_embed.table"].copy()
    table[1:] = np.random.default_rng(0).permutation(table[1:]) * -1
    lost = dataclasses.replace(after, weights={**after.weights, "pos_embed.table": table})
    assert drift(before, after).cosine_mean > drift(before, lost).cosine_mean


@pytest.mark.parametrize("pooling", [None, *(kind for kind in Pooling if kind is not Pooling.CLS_DISTILLATION)])
def test_features_of_every_pooling_can_be_compared_without_a_head(make_checkpoint, pooling):
    before = make_checkpoint(include_top=False, pooling=pooling)
    found = drift(before, resize(before, (40, 20)))
    assert found.top1_agreement is None
    assert all(-1 <= cosine <= 1 + 1e-9 for cosine in found.cosines)
    assert min(found.cosines) < 1 - 1e-6
