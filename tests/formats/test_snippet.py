"""The printed lines, run as a program without this package, answer as the reference does."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.exporters.variants import trained
from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.images import load_image
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.errors import ArtifactError
from vit_deploy.exporters import EXPORTERS, ExportOptions
from vit_deploy.formats.snippet import snippet

LABELS = ("cat", "dog", "größe", "a, b", "it's [x]")
CUT = {"resize": 27, "crop": True, "interpolation": "bicubic"}

COVER: dict[str, Any] = {"resize": (30, 44), "crop": True, "keep_aspect": True}
CASES: dict[str, tuple[str, ExportOptions, dict[str, Any], dict[str, Any]]] = {
    "onnx": ("onnx", ExportOptions(), {}, {}),
    "onnx, channels first, batch of 2, cut": ("onnx", ExportOptions(batch=2, layout="nchw"), {}, CUT),
    "onnx, grayscale pixels": ("onnx", ExportOptions(include_preprocessing=True), {"channels": 1}, {}),
    "onnx, channels first, pixels": ("onnx", ExportOptions(layout="nchw", include_preprocessing=True), {}, {}),
    "onnx, four bands, aspect kept": ("onnx", ExportOptions(), {"channels": 4}, COVER),
    "onnx, top left of what a crop makes": ("onnx", ExportOptions(), {}, {**CUT, "resize": 36, "input_size": (27, 35)}),
    "tflite": ("tflite", ExportOptions(batch=1), {}, {}),
    "tflite, batch of 3, exact resize": ("tflite", ExportOptions(batch=3), {}, {"resize": (30, 44), "crop": True}),
    "tflite, pixels, cut": ("tflite", ExportOptions(batch=1, include_preprocessing=True), {}, CUT),
    "savedmodel": ("savedmodel", ExportOptions(), {}, {}),
    "tflite, grayscale, nearest": ("tflite", ExportOptions(batch=1), {"channels": 1}, {"interpolation": "nearest"}),
}


def made(format: str, options: ExportOptions, checkpoint: Checkpoint, folder: Path) -> Artifact:
    spec = options.input_spec(checkpoint.config)
    artifact = describe(checkpoint, folder, format=format, precision="fp32", input=spec)
    EXPORTERS.load(format)().write(checkpoint, artifact, options)
    return artifact


def photograph(folder: Path, channels: int) -> Path:
    """A PNG that is upright only by its EXIF orientation, in other bands than the model's where Pillow can convert."""
    rng = np.random.default_rng(2)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8))
    image = coarse.resize((61, 45), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    (image if channels == 4 else image.convert("RGB")).save(folder / "photo.png", exif=exif)
    return folder / "photo.png"


def answered(text: str, image: Path, folder: Path) -> str:
    """What the program prints, in a process that can import neither this package nor Keras."""
    for name in ("vit_deploy", "keras", "tf_keras"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise ImportError('the snippet is to be plain')\n")
    (folder / "snippet.py").write_text(text, encoding="utf-8")
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "snippet.py", image], cwd=folder, env=environment, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_snippet_answers_as_the_reference_does(case, tmp_path):
    format, options, changes, preparation = CASES[case]
    checkpoint = dataclasses.replace(trained(**({"channels": 3} | changes)), labels=LABELS)
    preprocess = dataclasses.replace(checkpoint.preprocess, **preparation)
    checkpoint = dataclasses.replace(checkpoint, preprocess=preprocess)
    artifact = made(format, options, checkpoint, tmp_path)
    path = photograph(tmp_path, checkpoint.config.channels)

    text = snippet(artifact)
    printed = answered(text, path, tmp_path)

    image = load_image(path, preprocess, checkpoint.config.image_size)
    (logits,) = forward(checkpoint, image[None])
    lines = [line.split(" ", 1) for line in printed.splitlines()]
    best = np.argsort(-logits)
    assert [label for _, label in lines] == [LABELS[index] for index in best]
    np.testing.assert_allclose([float(value) for value, _ in lines], logits[best], rtol=0, atol=2e-4)
    assert np.ptp(logits) > 0.1
    assert len([line for line in text.splitlines() if line and "import " not in line]) <= 12


@pytest.mark.parametrize(
    "format", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tflite", "savedmodel"))]
)
def test_the_folder_may_be_called_like_a_pattern(format, tmp_path):
    checkpoint = dataclasses.replace(trained(), labels=LABELS)
    folder = tmp_path / "run [1] * what?"
    folder.mkdir()
    options = ExportOptions(batch=1 if format == "tflite" else None)
    artifact = made(format, options, checkpoint, folder)
    path = photograph(tmp_path, 3)
    printed = answered(snippet(artifact), path, tmp_path)
    image = load_image(path, checkpoint.preprocess, checkpoint.config.image_size)
    (logits,) = forward(checkpoint, image[None])
    assert [line.split(" ", 1)[1] for line in printed.splitlines()] == [LABELS[place] for place in np.argsort(-logits)]


def test_where_it_runs_can_be_said(tmp_path):
    checkpoint = trained()
    spec = InputSpec((None, 24, 32, 3))

    def lines(format):
        return snippet(describe(checkpoint, tmp_path, format=format, precision="fp32", input=spec))

    assert 'providers=["CPUExecutionProvider"])' in lines("onnx")
    assert 'onnxruntime.preload_dlls() first, then ["CUDAExecutionProvider", "CPUExecutionProvider"]' in lines("onnx")
    assert 'with tf.device("/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"):' in lines("savedmodel")


def test_without_a_head_the_features_shape_is_printed(tmp_path):
    checkpoint = trained(include_top=False)
    artifact = made("onnx", ExportOptions(), checkpoint, tmp_path)
    printed = answered(snippet(artifact), photograph(tmp_path, 3), tmp_path)
    assert printed == f"features of shape ({checkpoint.config.sequence_length}, {checkpoint.config.embed_dim})\n"


def test_without_labels_the_classes_numbers_are_printed(tmp_path):
    checkpoint = trained()
    artifact = made("onnx", ExportOptions(), checkpoint, tmp_path)
    path = photograph(tmp_path, 3)
    printed = answered(snippet(artifact), path, tmp_path)
    image = load_image(path, checkpoint.preprocess, checkpoint.config.image_size)
    (logits,) = forward(checkpoint, image[None])
    assert [int(line.split()[1]) for line in printed.splitlines()] == list(np.argsort(-logits))


def test_a_quantized_input_and_output_are_converted(tmp_path):
    """No exporter here writes integer-only files yet: a stand-in for the engine shows what it is given."""
    checkpoint = trained(channels=1)
    spec = InputSpec((1, 24, 32, 1), dtype="int8", scale=0.02, zero_point=3)
    artifact = describe(checkpoint, tmp_path, format="tflite", precision="int8-full", input=spec)
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(
        """
import numpy as np

class Interpreter:
    def __init__(self, path): pass
    def get_signature_runner(self, name):
        def run(images):
            assert images.dtype == np.int8 and images.shape == (1, 24, 32, 1)
            np.save("given.npy", images)
            return {"logits": np.array([[-8, 1, 2, 3, 4]], np.int8)}
        return run
    def get_output_details(self):
        return [{"quantization": (0.5, -10)}]
"""
    )
    path = photograph(tmp_path, 1)
    printed = answered(snippet(artifact), path, tmp_path)
    image = load_image(path, checkpoint.preprocess, (24, 32)).astype(float)
    stored = np.clip(np.rint(image / 0.02) + 3, -128, 127)
    assert np.abs(np.load(tmp_path / "given.npy")[0] - stored).max() <= 1
    assert len(np.unique(stored)) > 20
    assert printed.splitlines() == ["7.000000 4", "6.500000 3", "6.000000 2", "5.500000 1", "1.000000 0"]


def test_a_checkpoint_has_no_plain_engine(checkpoint, tmp_path):
    spec = InputSpec((None, 24, 32, 3))
    artifact = describe(checkpoint, tmp_path, format="keras", precision="fp32", input=spec, model="vit.keras")
    with pytest.raises(
        ArtifactError, match=r"vit\.keras is a checkpoint, which no plain engine runs\n  fix: export it first"
    ):
        snippet(artifact)


def test_a_name_that_would_be_code_is_refused(checkpoint, tmp_path):
    spec = InputSpec((None, 24, 32, 3), name="x=__import__('os').getcwd() or images")
    artifact = describe(checkpoint, tmp_path, format="tflite", precision="fp32", input=spec)
    with pytest.raises(ArtifactError, match="calls its input"):
        snippet(artifact)


def test_preprocessing_without_resize_is_left_alone_by_a_crop(checkpoint, tmp_path):
    plain = dataclasses.replace(checkpoint, preprocess=Preprocess(crop=True))
    artifact = describe(plain, tmp_path, format="onnx", precision="fp32", input=InputSpec((None, 24, 32, 3)))
    assert "crop" not in snippet(artifact)
    assert ".resize((32, 24)" in snippet(artifact)
