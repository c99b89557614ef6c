"""Files of integers in a processor that is not here, compared with ONNX Runtime here and in an emulator of one."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import onnxruntime
import pytest

from tests.exporters.variants import exported, pixels, trained
from tests.haswell import QEMU, on_haswell
from vit_deploy.core.reference import forward
from vit_deploy.errors import EngineError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.runtimes.simulators import SIMULATORS

PRECISIONS = ("int8", "int8-static")
OPTIONS = {
    "plain": ({}, ExportOptions()),
    "gated, fixed batch, NCHW": (
        {"ffn_type": "swiglu", "pooling": "mean", "normalization_type": "rms_norm"},
        ExportOptions(batch=2, layout="nchw"),
    ),
    "opset 17, tanh": ({"activation": "gelu_tanh", "qk_norm": True}, ExportOptions(opset=17)),
    "pixels, probe": (
        {"activation": "silu", "pooling": "map", "class_token": False},
        ExportOptions(include_preprocessing=True),
    ),
}


def snr_db(outputs, expected):
    assert outputs.shape == expected.shape and np.isfinite(outputs).all()
    return float(10 * np.log10(np.square(expected).mean() / np.square(outputs - expected).mean()))


def made(folder, precision, changes=None, options=OPTIONS["plain"][1], **recipe):
    """A quantized file, images as it takes them, and what the definition answers."""
    checkpoint = trained(**(changes or {}))
    taken = pixels(checkpoint, 6)
    normalised = checkpoint.preprocess.normalize(taken)
    images = taken if options.include_preprocessing else normalised
    (folder / "fp32").mkdir(parents=True)
    source = exported(OnnxExporter(), checkpoint, folder / "fp32", options)
    asked = dataclasses.replace(ONNX_RECIPES[precision], **recipe)
    target = dataclasses.replace(source, directory=folder, precision=precision)
    images_to_see = Calibration(images, (), 0, "tests") if asked.needs_calibration else None
    return OnnxQuantizer().write(source, target, asked, images_to_see), images, forward(checkpoint, normalised)


def simulated(artifact, images):
    with SIMULATORS.load("no-vnni")().open(artifact) as session:
        assert session.provider == "no-vnni"
        return session.infer(images)


def here(artifact, images):
    """In ONNX Runtime, with kernels that are exact whatever this processor is."""
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.x64quantprecision", "1")
    settings.log_severity_level = 4
    engine = onnxruntime.InferenceSession(str(artifact.model_path), settings, providers=["CPUExecutionProvider"])
    given = images.transpose(0, 3, 1, 2) if artifact.input.layout == "nchw" else images
    size = artifact.input.batch or len(given)
    return np.concatenate([engine.run(None, {"images": given[i : i + size]})[0] for i in range(0, len(given), size)])


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_file_whose_pairs_fit_answers_as_it_does_with_vnni(options, precision, tmp_path):
    artifact, images, expected = made(tmp_path / "made", precision, *OPTIONS[options])
    outputs, exact = simulated(artifact, images), here(artifact, images)
    assert outputs.dtype == np.float32
    assert snr_db(outputs, exact) > snr_db(exact, expected) > 20  # but for values that were halfway between integers


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_file_of_weights_up_to_127_answers_otherwise(precision, tmp_path):
    artifact, images, expected = made(tmp_path / "made", precision, fitting_pairs=False)
    assert snr_db(simulated(artifact, images), expected) < snr_db(here(artifact, images), expected) - 3


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None or sys.platform != "linux", reason="qemu-user is not installed")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_such_a_processor_answers_what_was_simulated(precision, tmp_path):
    artifact, images, expected = made(tmp_path / "made", precision, fitting_pairs=False)
    np.save(tmp_path / "images.npy", images)
    real = on_haswell(artifact.model_path, tmp_path / "images.npy", "usual")
    assert snr_db(real, expected) < snr_db(here(artifact, images), expected) - 3
    assert snr_db(simulated(artifact, images), real) > snr_db(real, expected) + 10


def test_a_file_that_is_no_model_is_an_error(tmp_path):
    artifact, images, _ = made(tmp_path / "made", "int8")
    artifact.model_path.write_bytes(b"\x08\xff\xff")
    with pytest.raises(EngineError, match="not an ONNX file"):
        simulated(artifact, images)
