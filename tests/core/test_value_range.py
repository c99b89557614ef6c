"""Images whose values no recorded preprocessing gives, found by their range alone."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.images import channels_first
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.value_range import problem_of

GOOGLE = Preprocess()
IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SCALED = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3)
PIXELS_AS_THEY_ARE = Preprocess(mean=(0.0,) * 3, std=(1 / 255,) * 3)
ALL = {"google": GOOGLE, "imagenet": IMAGENET, "scaled": SCALED, "pixels": PIXELS_AS_THEY_ARE}


def pixels():
    taken = natural_pixels(8, 24, 32, 3)
    taken[0, 0, 0], taken[1, 1, 1] = 0, 255  # as in photographs, something is black and something white
    return taken


@pytest.mark.parametrize("given", ALL)
@pytest.mark.parametrize("wanted", ALL)
def test_images_normalised_for_another_model_are_told_apart_and_ones_own_pass(wanted, given):
    images = list(ALL[given].normalize(pixels()))
    assert bool(problem_of(images, ALL[wanted])) == (wanted != given)


@pytest.mark.parametrize("preprocess", ALL.values())
def test_ones_own_images_pass_as_pixels_as_floats_and_resized_beyond_their_edges(preprocess):
    assert problem_of(list(pixels()), preprocess) == ""
    normalised = preprocess.normalize(pixels())
    assert problem_of(list(normalised), preprocess) == ""
    middle = normalised.mean()
    assert problem_of(list((normalised - middle) * 1.15 + middle), preprocess) == ""  # what bicubic adds at edges


@pytest.mark.parametrize(
    ("images", "words"),
    {
        "0..1": (pixels().astype(np.float32) / 255, "from 0 to 1, as if only scaled to 0..1; normalised ones are"),
        "0..255": (pixels().astype(np.float32), "from 0 to 255: pixels 0..255 as floats; normalised ones are from"),
        "cut": ((pixels() / 255).astype(np.uint8), "uint8 and no pixel is above 1"),
    }.values(),
)
def test_the_words_say_what_they_look_like(images, words):
    assert words in problem_of(list(images), GOOGLE)
    assert words in problem_of(list(images), IMAGENET)


def test_minus_one_to_one_is_told_apart_from_the_wider_range():
    said = problem_of(list(GOOGLE.normalize(pixels())), IMAGENET)
    assert "as if scaled to -1..1; normalised ones are from -2.12 to 2.64 (mean (0.485" in said


def test_channels_in_front_are_told_by_the_shape():
    assert channels_first((3, 24, 32), (24, 32, 3))
    assert not channels_first((24, 32, 3), (24, 32, 3)) and not channels_first((3, 32, 24), (24, 32, 3))
    assert not channels_first((3, 3, 3), (3, 3, 3))
