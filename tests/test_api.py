from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import vit_deploy
from vit_deploy import checkpoints, reference
from vit_deploy.errors import ConfigError, ExportError, OutputError
from vit_deploy.exporters import stage


def test_a_keras_model_is_exported_and_its_bundle_runs(tmp_path, images):
    model = vit_deploy.ViT(
        input_shape=(24, 32, 3), patch_size=(8, 4), num_classes=5, embed_dim=12, num_heads=3, num_layers=2, mlp_dim=20
    )
    (bundle,) = vit_deploy.export(model, tmp_path, formats=["onnx"])
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
    real = stage.verify

    def wrong(artifact, *, golden, **others):
        shifted = replace(golden, outputs=golden.outputs + 1.0)
        return real(artifact, golden=shifted, **others)

    monkeypatch.setattr(stage, "verify", wrong)
    with pytest.raises(ExportError, match="onnx-fp32: largest difference 1 is above the tolerance"):
        vit_deploy.export(checkpoint, tmp_path, formats=["onnx"])
    assert not (tmp_path / "onnx-fp32").exists()


def test_a_session_names_the_runtimes_that_take_a_format(bundles):
    with pytest.raises(ConfigError, match=r"litert does not run .*model\.onnx\n  fix: onnxruntime, openvino does"):
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
        "ViT",
        "__version__",
        "create_vision_transformer",
        "export",
        "load",
        "quantize",
        "session",
        "verify",
    ]
    assert engines == []


def test_every_public_name_is_there():
    assert all(getattr(vit_deploy, name) for name in vit_deploy.__all__)
