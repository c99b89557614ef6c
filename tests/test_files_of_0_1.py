"""Files that version 0.1 wrote load, run and answer as they did; `made_by_0_1` holds tiny ones, with their answers.

All have images of 16x24 and weights drawn at random. `vit` is a plain model as `.keras`, `.weights.h5`, `.safetensors`
and artifacts, `options` has most options, `new_head` is a functional model of a ViT, Dropout and Dense, and `layers`
has one of every layer of the package by itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.reference import forward
from vit_deploy.verification.verifying import verify

OLD = Path(__file__).parent / "made_by_0_1"
ANSWERS = np.load(OLD / "answers.npz")
KERAS_FILES = ("vit", "options", "new_head", "layers")
FP32 = ("onnx-fp32", "tflite-fp32", "savedmodel-fp32")
INT8 = ("onnx-int8", "tflite-int8")
TOLERANCE = 2e-5  # of answers between -4 and 4 in float32


def normalized() -> np.ndarray:
    return checkpoints.load(OLD / "vit.keras").preprocess.normalize(ANSWERS["pixels"])


def test_the_files_name_the_modules_and_classes_of_then() -> None:
    named = set()
    for name in KERAS_FILES:
        with zipfile.ZipFile(OLD / f"{name}.keras") as archive:
            named |= set(_named(json.loads(archive.read("config.json"))))
    assert ("vit_deploy.model.vit", "vit_deploy>ViT") in named
    classes = {registered for _, registered in named}
    parts = ("PatchEmbedding", "PrefixTokens", "PositionEmbedding", "PreNorm", "TransformerBlock", "Attention")
    parts += ("FeedForward", "LayerScale", "Norm", "MapPooling", "PreLogits", "Projection", "SeededTruncatedNormal")
    assert {f"vit_deploy>{part}" for part in parts} <= classes


@pytest.mark.parametrize("name", KERAS_FILES)
def test_keras_loads_an_old_file_and_it_answers_as_it_did(name: str) -> None:
    import keras

    assert (
        vit_deploy.ViT.__module__ == "vit_deploy.model.vit"
    )  # imported, so that Keras knows the classes by their names

    model = keras.saving.load_model(OLD / f"{name}.keras")
    outputs = model.predict(normalized(), verbose=0)
    np.testing.assert_allclose(outputs, ANSWERS[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", [pytest.param("vit", marks=pytest.mark.slow), "options"])
def test_a_program_that_imports_the_model_by_its_path_loads_it(name: str, tmp_path: Path) -> None:
    code = (
        "import sys, keras, numpy as np, vit_deploy.model.vit\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "np.save(sys.argv[2], model.predict(np.load(sys.argv[3]), verbose=0))\n"
    )
    np.save(tmp_path / "images.npy", normalized())
    arguments = [OLD / f"{name}.keras", tmp_path / "outputs.npy", tmp_path / "images.npy"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), ANSWERS[name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["vit", "options", "new_head"])
def test_an_old_keras_file_is_a_checkpoint_that_the_reference_answers_alike(name: str) -> None:
    checkpoint = checkpoints.load(OLD / f"{name}.keras")
    images = checkpoint.preprocess.normalize(ANSWERS["pixels"])
    np.testing.assert_allclose(forward(checkpoint, images), ANSWERS[name], atol=TOLERANCE, rtol=0)
    assert vit_deploy.load(OLD / f"{name}.keras") is not None


def test_old_weights_are_the_same_in_every_container() -> None:
    whole = checkpoints.load(OLD / "vit.keras")
    config = {name: value for name, value in whole.config.to_dict().items() if value is not None}
    others = (checkpoints.load(OLD / "vit.safetensors"), checkpoints.load(OLD / "vit.weights.h5", config=config))
    for other in others:
        assert other.config == whole.config
        assert other.weights.keys() == whole.weights.keys()
        assert all(np.array_equal(other.weights[name], whole.weights[name]) for name in whole.weights)


@pytest.mark.parametrize("name", FP32)
def test_an_old_artifact_runs_and_answers_as_it_did(name: str) -> None:
    images = normalized()
    with vit_deploy.session(OLD / "artifacts" / name) as session:
        outputs = np.concatenate([session.infer(image[None]) for image in images])
    np.testing.assert_allclose(outputs, ANSWERS[name], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(outputs, ANSWERS["vit"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", [*FP32, *INT8])
def test_an_old_artifact_passes_its_proof(name: str) -> None:
    artifact = read_artifact(OLD / "artifacts" / name)
    assert artifact.config == checkpoints.load(OLD / "vit.keras").config
    result = verify(artifact)
    assert result.ok, result.failures


def _named(node: object) -> list[tuple[object, object]]:
    """Module and registered name of everything that Keras serialized."""
    if isinstance(node, dict):
        own = [(node["module"], node["registered_name"])] if "registered_name" in node and "module" in node else []
        return own + [pair for value in node.values() for pair in _named(value)]
    if isinstance(node, list):
        return [pair for value in node for pair in _named(value)]
    return []
