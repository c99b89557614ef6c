"""On an NVIDIA GPU: the engines really run there, and say so. Run with `pytest -m gpu` on such a machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from vit_deploy.artifact import read_artifact
from vit_deploy.parity import verify
from vit_deploy.runtimes import RUNTIMES, DeviceSession, RuntimeOptions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU"),
]
CASES = [("onnx", "onnxruntime", "cuda"), ("onnx", "onnxruntime", "tensorrt"), ("savedmodel", "savedmodel", "cuda")]


def needs(runtime, provider):
    """Skip unless the engine that is installed was built for the provider."""
    if RUNTIMES[runtime].missing():
        pytest.skip(f"needs {runtime}")
    if runtime == "onnxruntime":
        import onnxruntime

        from vit_deploy.runtimes.ort import PROVIDERS

        if PROVIDERS[provider] not in onnxruntime.get_available_providers():
            pytest.skip(f"this ONNX Runtime has no {provider}")
    else:
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            pytest.skip("this TensorFlow has no GPU")


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_a_bundle_answers_on_the_gpu_within_its_tolerance(bundles, format, runtime, provider):
    needs(runtime, provider)
    artifact = read_artifact(bundles[format])
    found = verify(artifact, runtime=runtime, provider=provider)
    assert found.provider == provider
    assert found.parity.ok, found.parity.failures


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_most_operators_are_on_the_gpu_and_all_are_counted(bundles, format, runtime, provider):
    needs(runtime, provider)
    artifact = read_artifact(bundles[format])
    with RUNTIMES.load(runtime)().open(artifact, RuntimeOptions(provider=provider)) as session:
        assert isinstance(session, DeviceSession)
        assert session.placement[provider] > 0.8 * sum(session.placement.values())


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_the_benchmark_times_copies_apart_and_counts_energy(bundles, format, runtime, provider):
    needs(runtime, provider)
    command = [sys.executable, "-m", "vit_deploy", "bench", str(bundles[format]), "--runtime", runtime]
    done = subprocess.run(
        [*command, "--provider", provider, "--seconds", "1", "--json"], capture_output=True, text=True, check=True
    )
    [result] = json.loads(done.stdout)["results"]
    assert result["provider"] == provider
    assert result["transfer_ms"] > 0 and len(result["transfer_ns"]) > 1
    assert result["placement"][provider] > 0
    assert result["warmup_calls"] > 1
    try:
        import pynvml  # noqa: F401
    except ImportError:
        assert result["gpu_energy_j"] is None
    else:
        assert result["gpu_energy_j"] > 0
