from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core import reference
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import ConfigError, ExportError, OutputError, VitDeployError
from vit_deploy.exporters import publish


def test_a_keras_model_is_exported_and_its_bundle_runs(tmp_path, images):
    model = vit_deploy.ViT(
        input_shape=(24, 32, 3), patch_size=(8, 4), num_classes=5, embed_dim=12, num_heads=3, num_layers=2, mlp_dim=20
    )
    exported = vit_deploy.export(model, tmp_path, formats=["onnx"])
    assert exported.origins is None and "assumed" not in exported.to_dict()
    (bundle,) = exported
    assert bundle.directory == tmp_path / "onnx-fp32"
    with vit_deploy.session(bundle) as session:
        outputs = session.infer(images)
    np.testing.assert_allclose(outputs, reference.forward(model.to_checkpoint(), images), atol=1e-5)
    assert vit_deploy.verify(bundle.directory).parity.ok


def test_a_checkpoint_and_its_file_become_the_same_bundle(tmp_path, checkpoint):
    checkpoints.save(checkpoint, tmp_path / "model.safetensors")
    (one,) = vit_deploy.export(checkpoint, tmp_path / "a", formats=["tflite"])
    (two,) = vit_deploy.export(tmp_path / "model.safetensors", tmp_path / "b", formats=["tflite"])
    assert one.weights_digest == two.weights_digest == checkpoint.digest()
    assert one.files["model.tflite"] == two.files["model.tflite"]


def test_a_functional_model_around_a_vit_is_folded(tmp_path, images):
    import keras

    backbone = vit_deploy.ViT(
        input_shape=(24, 32, 3),
        patch_size=(8, 4),
        include_top=False,
        pooling="mean",
        embed_dim=12,
        num_heads=3,
        num_layers=1,
    )
    inputs = keras.Input((24, 32, 3))
    model = keras.Model(inputs, keras.layers.Dense(7)(backbone(inputs)))
    (bundle,) = vit_deploy.export(model, tmp_path, formats=["onnx"])
    assert bundle.config.num_classes == 7
    with vit_deploy.session(bundle, threads=1) as session:
        np.testing.assert_allclose(session.infer(images), model.predict(images, verbose=0), atol=1e-5)


def test_what_is_no_model_is_refused_by_its_type(tmp_path):
    with pytest.raises(ConfigError, match="a list cannot be exported\n  fix: give a Keras model, a Checkpoint, or"):
        vit_deploy.export([1, 2], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_there_is_replaced_only_when_asked(tmp_path, checkpoint):
    vit_deploy.export(checkpoint, tmp_path, formats=["onnx"])
    with pytest.raises(OutputError, match="already there"):
        vit_deploy.export(checkpoint, tmp_path, formats=["onnx"])
    (again,) = vit_deploy.export(checkpoint, tmp_path, formats=["onnx"], opset=18, force=True)
    assert again.options["opset"] == 18


def test_a_failed_proof_is_an_error_that_names_the_artifact(tmp_path, checkpoint, monkeypatch):
    real = publish.verify

    def wrong(artifact, *, golden, **others):
        shifted = replace(golden, outputs=golden.outputs + 1.0)
        return real(artifact, golden=shifted, **others)

    monkeypatch.setattr(publish, "verify", wrong)
    with pytest.raises(ExportError, match="onnx-fp32: largest difference 1 is above the tolerance"):
        vit_deploy.export(checkpoint, tmp_path, formats=["onnx"])
    assert not (tmp_path / "onnx-fp32").exists()


def test_a_session_names_the_runtimes_that_take_a_format(bundles):
    with pytest.raises(
        ConfigError, match=r"litert does not run .*model\.onnx\n  fix: take onnxruntime or openvino or qnn or web"
    ):
        vit_deploy.session(bundles["onnx"], runtime="litert")


def test_the_public_names_are_these_and_importing_them_loads_no_engine():
    program = """
import json, sys
import vit_deploy
vit_deploy.export, vit_deploy.verify, vit_deploy.session
engines = {"tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "torch", "h5py"}
print(json.dumps([vit_deploy.__all__, sorted(engines & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names, engines = json.loads(done.stdout)
    assert names == [
        "ArchitectureOptions",
        "CheckpointOptions",
        "CompressOptions",
        "PlanOptions",
        "QuantizeOptions",
        "RuntimeOptions",
        "ViT",
        "VitDeployError",
        "__version__",
        "bench",
        "build",
        "bundle",
        "card",
        "compare",
        "compile",
        "compress",
        "convert",
        "create_vision_transformer",
        "demo",
        "doctor",
        "embed",
        "emulator",
        "evaluate",
        "export",
        "inspect",
        "load",
        "predict",
        "quantize",
        "read_images",
        "report",
        "resize",
        "session",
        "verify",
    ]
    assert engines == []


def test_every_public_name_is_there():
    assert all(getattr(vit_deploy, name) for name in vit_deploy.__all__)


def test_what_export_returned_is_verified_and_a_name_alone_is_one_format(tmp_path, checkpoint):
    bundles = vit_deploy.export(checkpoint, tmp_path, formats="onnx", precisions="fp32")
    assert [bundle.name for bundle in bundles] == ["onnx-fp32"]
    assert vit_deploy.verify(bundles[0]).parity.ok
    made = vit_deploy.quantize(bundles[0], tmp_path, precisions="int8")
    assert [each.name for each in made] == ["onnx-int8"]


@pytest.mark.slow
def test_the_name_of_a_scale_is_exported_with_random_weights(tmp_path):
    (bundle,) = vit_deploy.export("pico", tmp_path, formats="onnx")
    assert bundle.config == ViTConfig.from_scale("pico")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda at, one: vit_deploy.export(one, at, formats=5), 'formats is 5; .*\n  fix: write formats=\\["onnx"'),
        (lambda at, one: vit_deploy.export(one, at, formats=[]), "formats is \\[\\]; expected a name, or several"),
        (lambda at, one: vit_deploy.export(one, at, precisions=[8]), "precisions is \\[8\\]; expected a name"),
        (lambda at, one: vit_deploy.export(one, 3), "directory is 3; expected a path"),
        (lambda at, one: vit_deploy.export(one, at, formats="onnx", calibrate=1), "calibrate is 1; expected a path"),
        (lambda at, one: vit_deploy.verify(7), "int is no artifact"),
        (lambda at, one: vit_deploy.session(None), "NoneType is no artifact"),
        (lambda at, one: vit_deploy.read_images(at / "nowhere", 3), "does not exist"),
    ],
)
def test_a_wrong_type_is_an_error_that_says_what_is_expected(tmp_path, checkpoint, call, said):
    with pytest.raises(VitDeployError, match=said):
        call(tmp_path, checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_several_bundles_are_verified_and_a_session_takes_one(bundles):
    artifact = read_artifact(bundles["onnx"])
    found = vit_deploy.verify([artifact, bundles["tflite"]], quick=True)
    assert found.ok and [each.artifact.format for each in found] == ["onnx", "tflite"]
    with pytest.raises(ConfigError, match="list is no artifact, but holds 2 of them\n  fix: give one of them"):
        vit_deploy.session([artifact, artifact])


def test_image_files_become_the_input_of_a_session(bundles, tmp_path):
    for index, picture in enumerate(natural_pixels(2, 40, 50, 3)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    inputs = vit_deploy.read_images(bundles["onnx"], tmp_path)
    assert inputs.shape == (2, 24, 32, 3) and inputs.dtype == np.float32
    artifact = read_artifact(bundles["onnx"])
    expected = load_image(tmp_path / "1.png", artifact.preprocess, (24, 32))
    np.testing.assert_array_equal(vit_deploy.read_images(artifact, str(tmp_path / "1.png"))[0], expected)
    with vit_deploy.session(artifact) as model:
        assert model.infer(inputs).shape == (2, 5)
    with pytest.raises(ConfigError, match="files is 3; expected the path of an image"):
        vit_deploy.read_images(artifact, 3)


def test_image_files_stay_pixels_where_preprocessing_is_in_the_model(tmp_path, checkpoint):
    (bundle,) = vit_deploy.export(checkpoint, tmp_path / "out", formats="onnx", include_preprocessing=True)
    Image.fromarray(natural_pixels(1, 40, 50, 3)[0]).save(tmp_path / "a.png")
    inputs = vit_deploy.read_images(bundle, [tmp_path / "a.png"])
    assert inputs.dtype == np.uint8
    with vit_deploy.session(bundle) as model:
        assert model.infer(inputs).shape == (1, 5)


def test_what_a_checkpoint_file_does_not_say_is_stated_and_of_a_model_it_is_refused(tmp_path, make_checkpoint):
    from vit_deploy.api import as_checkpoint
    from vit_deploy.checkpoints import assumed, save

    whole = make_checkpoint()
    save(whole, tmp_path / "a.safetensors")
    stated = {"head": False, "preprocess": {"mean": 0.25}}
    features = as_checkpoint(tmp_path / "a.safetensors", stated)
    assert (features.config.include_top, features.preprocess.mean) == (False, (0.25, 0.25, 0.25))
    assert assumed(features.provenance) == ()
    with pytest.raises(ConfigError, match="head, preprocess can be stated of a checkpoint file"):
        as_checkpoint(whole, stated)


@pytest.mark.slow
def test_a_fresh_process_prints_nothing_of_what_tensorflow_logs(bundles, checkpoint, tmp_path):
    checkpoints.save(checkpoint, tmp_path / "small.keras")
    programs = (
        f"vit_deploy.compare({str(bundles['onnx'])!r}, {str(bundles['savedmodel'])!r})",
        f"vit_deploy.load({str(tmp_path / 'small.keras')!r}); vit_deploy.ViT",
    )
    unset = {"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    for program in programs:
        command = [sys.executable, "-c", f"import vit_deploy; {program}"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
