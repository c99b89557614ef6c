"""Ranges between the layers are those that the trained model takes on training images."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy.compression.data import open_images
from vit_deploy.compression.float_ranges import measured_between
from vit_deploy.compression.job import as_artifact
from vit_deploy.compression.stage import ready
from vit_deploy.core import reference
from vit_deploy.core.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def start(small):
    # All tokens are read, so that the file computes all that the reference computes.
    return ready(Checkpoint.random(small.config.replace(class_token=False, pooling="mean"), seed=3))


@pytest.fixture(scope="module")
def images(start, striped, tmp_path_factory):
    return open_images(striped, as_artifact(start, tmp_path_factory.mktemp("as") / "model"))


@pytest.fixture(scope="module")
def exact(start, images):
    """What the reference computes on the way, on all images."""
    found = {}
    reference.forward(start, start.preprocess.normalize(images.read(range(60))), detail=found.__setitem__)
    return found


def test_they_hold_what_the_reference_computes(start, images, exact, tmp_path):
    learned = {f"block_0.attention.query.{side}": (-1.0, 1.0) for side in ("input", "output")}
    found = measured_between(dataclasses.replace(start, ranges=learned), images, tmp_path)
    assert not found.keys() & learned.keys()
    known = {
        "patch_embed.input": start.preprocess.normalize(images.read(range(60))),
        "block_0.ffn.up.output": exact["block_0.ffn.up"],
        "block_0.ffn.gelu.0": exact["block_0.ffn.hidden"],
        "block_0.attention.value.output": exact["block_0.attention.value"],
    }
    for name, values in known.items():
        low, high = found[name]
        # The range of least error may leave out what is rare.
        assert np.mean((values >= low - 1e-5) & (values <= high + 1e-5)) > 0.98, name
        assert high - low <= max(values.max(), 0) - min(values.min(), 0) + 1e-4, name
    low, high = found["block_0.attention.softmax.0"]
    assert low == 0 and 0 < high <= 1


def test_a_querys_range_is_of_the_layer_and_not_of_what_the_file_made_of_it(start, images, exact, tmp_path):
    found = measured_between(start, images, tmp_path)
    values = exact["block_0.attention.query"]
    assert found["block_0.attention.query.output"][1] == pytest.approx(values.max(), rel=0.25)
