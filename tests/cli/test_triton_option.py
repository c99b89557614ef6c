"""`export --triton` fills a model repository with what was proven, or says before any work why it cannot."""

from __future__ import annotations

import pytest


@pytest.fixture
def export(run, keras_file, tmp_path):
    def call(*more, model=keras_file):
        out = ["-o", tmp_path / "out", "--triton", tmp_path / "repository"]
        return run("export", model, *out, *more, "--json")

    return call


def test_an_export_is_a_bundle_and_a_model_of_the_repository(export, tmp_path):
    said = export()
    assert said.code == 0, said.err
    (result,) = said.document["results"]
    model = tmp_path / "repository/small"
    assert result["format"] == "onnx", "what any Triton serves is the usual format here"
    assert result["triton"] == str(model)
    assert (model / "1/model.onnx").read_bytes() == (tmp_path / "out/onnx-fp32/model.onnx").read_bytes()
    assert 'name: "small"' in (model / "config.pbtxt").read_text()

    again = export("--force", "--triton-provider", "cpu")
    assert again.code == 0, again.err
    assert "kind: KIND_CPU" in (model / "config.pbtxt").read_text()


def test_what_a_file_is_made_for_executes_it(export, tmp_path):
    said = export("--for", "cuda", "--triton-provider", "tensorrt")
    assert said.code == 2 and "made for CUDA" in said.document["error"]["message"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "repository").exists()
    said = export("--for", "tensorrt")
    assert said.code == 0, said.err
    assert (
        'gpu_execution_accelerator {\n      name: "tensorrt"'
        in (tmp_path / "repository/small/config.pbtxt").read_text()
    )


def test_a_model_that_is_there_is_refused_before_any_work(export, tmp_path):
    (tmp_path / "repository/small").mkdir(parents=True)
    said = export()
    assert said.code == 2
    assert str(tmp_path / "repository/small") in said.document["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_tflite_and_a_provider_without_a_repository_are_refused(export, run, keras_file, tmp_path):
    said = export("--format", "tflite")
    assert said.code == 2 and "Triton has no backend for tflite files" in said.document["error"]["message"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "repository").exists()
    said = export("--format", "tensorrt", "--tensorrt", "rtx", "--unproven")
    assert said.code == 2 and "Triton loads plans of TensorRT alone" in said.document["error"]["message"]
    assert not (tmp_path / "out").exists() and not (tmp_path / "repository").exists()
    said = run("export", keras_file, "-o", tmp_path / "out", "--triton-provider", "cuda")
    assert said.code == 2 and "add --triton" in said.err


def test_what_fails_its_proof_does_not_get_into_the_repository(export, monkeypatch, tmp_path):
    from vit_deploy.exporters import publish

    real = publish.verify

    def failed(artifact, **options):
        result = real(artifact, **options)
        return type(result)(**{**vars(result), "parity": result.parity.failed("another function")})

    monkeypatch.setattr(publish, "verify", failed)
    said = export("--keep-failed")
    assert said.code == 1
    assert "triton" not in said.document["results"][0]
    assert not (tmp_path / "repository").exists()
