from __future__ import annotations

import json

import numpy as np
import pytest
from linear_onnx import expected, write_channels_first, write_for_pixels, write_model

from vit_deploy import cli
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.verification.verifying import verify

openvino = pytest.importorskip("openvino")
OpenVINO = pytest.importorskip("vit_deploy.runtimes.openvino").OpenVINO

BF16 = RuntimeOptions(provider="cpu-bf16")
needs_bf16 = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="the CPU has no bfloat16"
)


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_goes_through_any_batch_in_float32(make_artifact, weight, seven_images, batch, count):
    artifact = write_model(make_artifact("onnx", batch), weight)
    with OpenVINO().open(artifact) as session:
        outputs = session.infer(seven_images[:count])
        assert session.provider == "cpu"
        assert set(session.placement) == {"cpu"} and session.placement["cpu"] > 0
    assert outputs.dtype == np.float32
    # Rounding to bfloat16, which is OpenVINO's own choice where a processor can, costs a thousand times as much.
    np.testing.assert_allclose(outputs, expected(seven_images[:count], weight), atol=1e-5)


@needs_bf16
def test_bfloat16_is_run_where_it_is_asked_for(make_artifact, weight, seven_images):
    artifact = write_model(make_artifact("onnx"), weight)
    with OpenVINO().open(artifact, BF16) as session:
        outputs = session.infer(seven_images)
        assert session.provider == "cpu-bf16"
        assert session.placement["cpu-bf16"] > 0
    error = np.abs(outputs - expected(seven_images, weight)).max() / np.abs(outputs).max()
    assert 2**-12 < error < 2**-6


def test_a_cpu_without_bfloat16_is_an_error_that_says_what_it_has(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    monkeypatch.setattr(openvino.Core, "get_property", lambda core, device, name: ["FP32", "INT8"])
    with pytest.raises(EngineError, match=r"does not compute in bfloat16(?s:.*)offers FP32, INT8(?s:.*)--provider cpu"):
        OpenVINO().open(artifact, BF16).__enter__()


@needs_bf16
def test_a_graph_of_which_nothing_runs_in_bfloat16_is_an_error(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    original = openvino.Core.compile_model

    def as_it_likes(core, path, device, settings):
        return original(core, path, device, settings | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino.Core, "compile_model", as_it_likes)
    with pytest.raises(EngineError, match=r"cpu-bf16 takes none of the \d+ operators of .*: \d+ on cpu"):
        OpenVINO().open(artifact, BF16).__enter__()


def test_a_provider_that_it_has_not_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight)
    with pytest.raises(EngineError, match=r"with the provider 'cuda'(?s:.*)choose one of cpu, cpu-bf16"):
        OpenVINO().open(artifact, RuntimeOptions(provider="cuda")).__enter__()


def test_a_file_with_channels_first_takes_images_with_channels_last(make_artifact, weight, seven_images):
    artifact = write_channels_first(make_artifact, weight)
    with OpenVINO().open(artifact) as session:
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)


def test_a_file_with_preprocessing_inside_takes_pixels(make_artifact, weight):
    artifact = write_for_pixels(make_artifact, weight)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    with OpenVINO().open(artifact) as session:
        np.testing.assert_allclose(session.infer(pixels), expected(pixels, weight), rtol=1e-5, atol=1e-3)


def test_threads_streams_and_precision_are_said(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    seen = []
    original = openvino.Core.compile_model

    def record(core, path, device, settings):
        engine = original(core, path, device, settings)
        names = ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "INFERENCE_PRECISION_HINT", "ENABLE_CPU_PINNING")
        seen.append([engine.get_property(name) for name in names])
        return engine

    monkeypatch.setattr(openvino.Core, "compile_model", record)
    with OpenVINO().open(artifact, RuntimeOptions(threads=1)):
        pass
    assert seen == [[1, 1, openvino.Type.f32, False]]


def test_an_output_stays_when_the_next_call_is_made(make_artifact, weight, seven_images):
    artifact = write_model(make_artifact("onnx"), weight)
    with OpenVINO().open(artifact) as session:
        first = session.infer(seven_images[:2])
        kept = first.copy()
        assert not np.array_equal(session.infer(seven_images[2:4]), kept)
    assert np.array_equal(first, kept)


def test_weights_outside_of_the_bundle_are_refused(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight, location="../stolen.data")
    with pytest.raises(EngineError, match=r"keeps weights outside its artifact: \.\./stolen\.data"):
        OpenVINO().open(artifact).__enter__()


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x3a\xff\xff\x03"])
def test_a_missing_or_corrupt_file_is_an_error_with_its_path(make_artifact, content):
    artifact = make_artifact("onnx")
    if content is not None:
        artifact.model_path.write_bytes(content)
    with pytest.raises(EngineError, match=str(artifact.model_path)):
        OpenVINO().open(artifact).__enter__()


def test_a_file_that_is_not_the_bundles_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight, output="features")
    with pytest.raises(EngineError, match="has no output logits; it has features"):
        OpenVINO().open(artifact).__enter__()
    with pytest.raises(EngineError, match=r"takes images \(None, 6, 5, 3\); its manifest says images \(2, 6, 5, 3\)"):
        OpenVINO().open(make_artifact("onnx", 2)).__enter__()


@needs_bf16
def test_float32_is_held_to_its_noise_floor_and_bfloat16_to_a_tolerance_of_its_own(bundles):
    artifact = read_artifact(bundles["onnx"])
    exact, rounded = (verify(artifact, runtime="openvino", provider=name) for name in ("cpu", "cpu-bf16"))
    assert exact.ok and exact.parity.tolerance.held().keys() == {"max_abs"}
    assert rounded.ok and rounded.parity.tolerance.snr_db == 25
    assert 25 < rounded.parity.snr_db < 60 < exact.parity.snr_db


@needs_bf16
def test_bench_sweeps_over_both_precisions_and_says_where_the_operators_went(bundles, capfd):
    command = ["bench", str(bundles["onnx"]), "--runtime", "openvino", "--runs", "3", "--json"]
    assert cli.run([*command, "--provider", "cpu", "--provider", "cpu-bf16"]) == 0
    first, second = json.loads(capfd.readouterr().out)["results"]
    assert (first["provider"], second["provider"]) == ("cpu", "cpu-bf16")
    assert set(first["placement"]) == {"cpu"}
    assert second["placement"]["cpu-bf16"] > 0
