from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import ConfigError

IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_the_default_maps_pixels_to_minus_one_to_one() -> None:
    pixels = np.array([0, 255, 51], np.uint8).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(Preprocess().normalize(pixels).ravel(), [-1, 1, -0.6], atol=1e-6)


def test_each_channel_has_a_mean_and_a_deviation_of_its_own() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    plain = (pixels / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    result = IMAGENET.normalize(pixels)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_any_number_of_channels_has_a_default(channels: int) -> None:
    preprocess = Preprocess.for_channels(channels)
    assert preprocess.channels == channels
    assert preprocess.normalize(np.full((1, 2, 3, channels), 255, np.uint8)).max() == pytest.approx(1)


def test_scale_and_offset_take_the_mean_to_zero_and_one_deviation_to_one() -> None:
    scale, offset = IMAGENET.scale_and_offset()
    assert scale.dtype == offset.dtype == np.float32
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    np.testing.assert_allclose(255 * mean * scale + offset, 0, atol=1e-6)
    np.testing.assert_allclose(255 * (mean + std) * scale + offset, 1, atol=1e-6)


finite = st.floats(-10, 10)


@st.composite
def preprocesses(draw: st.DrawFn) -> Preprocess:
    channels = draw(st.integers(1, 5))
    edge = st.integers(1, 600)
    return Preprocess(
        mean=tuple(draw(st.lists(finite, min_size=channels, max_size=channels))),
        std=tuple(draw(st.lists(st.floats(1e-3, 10), min_size=channels, max_size=channels))),
        resize=draw(st.none() | edge | st.tuples(edge, edge)),
        crop=draw(st.booleans()),
        interpolation=draw(st.sampled_from(list(Interpolation))),
    )


@given(preprocesses())
def test_preprocessing_survives_the_trip_through_json(preprocess: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mean": (0.5,)}, "1 means and 3 standard deviations"),
        ({"mean": (), "std": ()}, "0 means and 0 standard deviations"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean is .*nan.*; expected finite numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std is .*; expected positive numbers"),
        ({"std": (0.5, float("inf"), 0.5)}, "std is .*; expected positive numbers"),
        ({"resize": 0}, "resize is 0; expected a positive number of pixels"),
        ({"resize": 2.5}, "resize is 2.5; expected a positive number"),
        ({"resize": (8, 8, 8)}, "resize is .*; expected a positive number"),
        ({"resize": (8,)}, "resize is .*; expected a positive number"),
        ({"resize": ()}, "resize is .*; expected a positive number"),
        ({"resize": True}, "resize is True; expected a positive number"),
        ({"crop": "yes"}, "crop is 'yes'; expected True or False"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; expected one of nearest, bilinear, bicubic, lanczos"),
    ],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"preprocessing: .*{said}"):
        Preprocess(**wrong)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"std is .*resize is .*interpolation is "):
        Preprocess(std=(0, 1, 1), resize=-3, interpolation="x")


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="unknown preprocessing fields: gamma"):
        Preprocess.from_dict({"gamma": 2.2})


def test_an_aspect_is_kept_only_on_the_way_to_a_crop_and_is_recorded_only_then():
    covering = Preprocess(resize=(26, 35), crop=True, keep_aspect=True)
    assert Preprocess.from_dict(covering.to_dict()) == covering and covering.to_dict()["keep_aspect"] is True
    assert "keep_aspect" not in Preprocess(resize=(26, 35), crop=True).to_dict()
    for wrong in ({"resize": 26, "crop": True}, {"resize": (26, 35)}, {"crop": True}):
        with pytest.raises(ConfigError, match="keep_aspect is True; expected False, or True with a resize"):
            Preprocess(keep_aspect=True, **wrong)
    with pytest.raises(ConfigError, match="keep_aspect is 1"):
        Preprocess(resize=(26, 35), crop=True, keep_aspect=1)
