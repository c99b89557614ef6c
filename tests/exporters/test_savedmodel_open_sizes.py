"""A SavedModel for images of any size is the model resized to each of them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

import vit_deploy
from tests.exporters.variants import VARIANTS, assert_same_function, exported, pixels, trained
from vit_deploy.core.resize import Convention, resize
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.savedmodel.export import SavedModelExporter

OPEN = ExportOptions(dynamic_size=True)
FEW = ("mean pooling", "MLCD")
RELATIVE = [name for name, changes in VARIANTS.items() if "relative_positions" in changes]


def served(path, images):
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    (outputs,) = signature(images=tf.constant(images)).values()
    return outputs.numpy()


@pytest.mark.parametrize(
    "name",
    [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name not in {*FEW, *RELATIVE})],
)
def test_every_variant_is_the_model_resized_to_the_images(name, tmp_path):
    checkpoint = trained(**VARIANTS[name])
    path = exported(SavedModelExporter(), checkpoint, tmp_path, OPEN).model_path
    height, width = checkpoint.config.patch_size

    for rows, columns in ((3, 8), (5, 8), (2, 3), (1, 11)):
        resized = resize(checkpoint, (rows * height, columns * width))
        images = resized.preprocess.normalize(pixels(resized, 3))
        assert_same_function(served(path, images), resized, images)


@pytest.mark.parametrize("like", [Convention.DINOV2, Convention.GOOGLE])
def test_positions_are_resampled_like_each_convention(like, tmp_path):
    checkpoint = trained(pooling="mean")
    options = dataclasses.replace(OPEN, like=like, batch=2)
    path = exported(SavedModelExporter(), checkpoint, tmp_path, options).model_path

    for size in ((24, 32), (32, 32), (16, 52)):
        resized = resize(checkpoint, size, like=like)
        images = resized.preprocess.normalize(pixels(resized, 2))
        assert_same_function(served(path, images), resized, images)


@pytest.mark.parametrize(
    ("size", "said"), [((25, 32), "the height of images must be a multiple of 8"), ((24, 30), "the width of images")]
)
def test_an_image_that_is_not_cut_into_patches_is_an_error_of_tensorflow_that_says_so(size, said, tmp_path):
    path = exported(SavedModelExporter(), trained(), tmp_path, OPEN).model_path

    with pytest.raises(tf.errors.InvalidArgumentError, match=said):
        served(path, np.zeros((1, *size, 3), np.float32))


def test_one_export_makes_both_formats_and_proves_them_at_five_sizes(tmp_path):
    made = vit_deploy.export(trained(), tmp_path, formats=["onnx", "savedmodel"], image_size="dynamic")

    for artifact in made:
        manifest = json.loads((artifact.directory / "artifact.json").read_text())
        assert len(manifest["sizes"]) == 5 and manifest["input"]["shape"] == [None, None, None, 3]
        (record,) = vit_deploy.verify(artifact, quick=True).to_dict()["results"]
        assert len(record["sizes"]) == 4 and all(size["ok"] for size in record["sizes"])
