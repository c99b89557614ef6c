"""On an NVIDIA GPU: the engines really run there, are right, and say so. Run with `pytest -m gpu` on such a machine.

`VIT_DEPLOY_GPU_BUNDLES` names a folder of exported artifacts, so that neither TensorFlow nor an exporter is needed;
without it small ones are exported here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RUNTIMES, DeviceRuntime, DeviceSession, RuntimeOptions
from vit_deploy.verification.verifying import verify

pytestmark = pytest.mark.gpu
BUNDLES = "VIT_DEPLOY_GPU_BUNDLES"
CASES = [("onnx", "onnxruntime", "cuda"), ("onnx", "onnxruntime", "tensorrt"), ("savedmodel", "savedmodel", "cuda")]
BATCHES = (1, 8, 1, 3, 8)


@pytest.fixture(scope="module")
def artifacts(request):
    """Artifacts by format, precision, and what they are made for."""
    if folder := os.environ.get(BUNDLES):
        found = [read_artifact(path.parent) for path in sorted(Path(folder).rglob(MANIFEST))]
    elif importlib.util.find_spec("tensorflow") is None:
        pytest.skip(f"needs {BUNDLES} or TensorFlow")
    else:
        found = [read_artifact(path) for path in request.getfixturevalue("bundles").values()]
    return {(each.format, each.precision, each.options.get("for", "cpu")): each for each in found}


@pytest.fixture
def bundle(artifacts):
    """An artifact of a format; the test is skipped where there is none, or where its engine has no such GPU."""

    def get(format, runtime, provider, precision="fp32", made_for="cpu"):
        if (format, precision, made_for) not in artifacts:
            pytest.skip(f"no artifact of {format} in {precision} for {made_for}")
        if RUNTIMES[runtime].missing():
            pytest.skip(f"needs {runtime}")
        engine = RUNTIMES.load(runtime)()
        assert isinstance(engine, DeviceRuntime)
        try:
            engine.prepare(RuntimeOptions(provider=provider))
        except EngineError as error:
            pytest.skip(error.message)
        if provider == "tensorrt":
            skip_without_tensorrt(engine, artifacts["onnx", "fp32", "cpu"])
        return artifacts[format, precision, made_for]

    return get


def skip_without_tensorrt(engine, artifact):
    try:
        with engine.open(artifact, RuntimeOptions(provider="tensorrt")):
            pass
    except EngineError as error:
        if "TensorRT" in error.message and "missing" in error.message:
            pytest.skip(error.message)
        raise


@contextlib.contextmanager
def opened(artifact, runtime="onnxruntime", **options):
    with RUNTIMES.load(runtime)().open(artifact, RuntimeOptions(**options)) as session:
        assert isinstance(session, DeviceSession)
        yield session


def images_for(artifact, count, seed=0):
    config = artifact.config
    shape = (count, *config.image_size, config.channels)
    rng = np.random.default_rng(seed)
    if artifact.input.preprocessing_inside:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


def assert_alike(found, truth, precision="fp32"):
    """Equal but for the order in which kernels for another batch add up."""
    assert np.isfinite(found).all()
    rounded = 2**-6 if precision == "bf16" else 1e-3  # which has three bits fewer than fp16 and TF32
    assert np.abs(found - truth).max() <= rounded * np.abs(truth).max()


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_a_bundle_answers_on_the_gpu_within_its_tolerance(bundle, format, runtime, provider):
    found = verify(bundle(format, runtime, provider), runtime=runtime, provider=provider)
    assert found.provider == provider
    assert found.parity.ok, found.parity.failures


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8", "int8-static", "int4"])
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_other_precisions_answer_within_theirs(bundle, precision, provider):
    found = verify(bundle("onnx", "onnxruntime", provider, precision), runtime="onnxruntime", provider=provider)
    assert found.parity.ok, found.parity.failures


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_file_that_is_made_for_cuda_answers_there_within_its_tolerance_and_leaves_the_cpu_nothing(bundle, precision):
    artifact = bundle("onnx", "onnxruntime", "cuda", precision, "cuda")
    found = verify(artifact, runtime="onnxruntime", provider="cuda")
    assert found.parity.ok, found.parity.failures
    with opened(artifact, provider="cuda") as session:
        shapes = 2  # the shape of the class token, which is computed on the host
        assert session.placement.get("cpu", 0) <= shapes


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_most_operators_are_on_the_gpu_and_all_are_counted(bundle, format, runtime, provider):
    with opened(bundle(format, runtime, provider), runtime, provider=provider) as session:
        assert session.placement[provider] > 0.8 * sum(session.placement.values())


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_the_benchmark_times_copies_apart_and_counts_energy(bundle, format, runtime, provider):
    artifact = bundle(format, runtime, provider)
    command = [sys.executable, "-m", "vit_deploy", "bench", str(artifact.directory), "--runtime", runtime]
    done = subprocess.run(
        [*command, "--provider", provider, "--seconds", "1", "--json"], capture_output=True, text=True, check=True
    )
    [result] = json.loads(done.stdout)["results"]
    assert result["provider"] == provider
    assert result["transfer_ms"] > 0 and len(result["transfer_ns"]) > 1
    assert result["placement"][provider] > 0
    assert result["warmup_calls"] > 1
    if importlib.util.find_spec("pynvml") is None:
        assert result["gpu_energy_j"] is None


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("made_for", ["cpu", "cuda"])
def test_a_replayed_graph_answers_as_plain_calls_do(bundle, precision, made_for):
    artifact = bundle("onnx", "onnxruntime", "cuda", precision, made_for)
    with opened(artifact, provider="cuda") as plain, opened(artifact, provider="cuda", cuda_graph=True) as graph:
        for number, count in enumerate(BATCHES):
            images = images_for(artifact, count, seed=number)
            assert_alike(graph.infer(images), plain.infer(images), precision)
        graph.upload(images_for(artifact, 8, seed=20))
        for _ in range(5):
            graph.launch()
        graph.wait()
        assert_alike(graph.download(), plain.infer(images_for(artifact, 8, seed=20)), precision)


def test_a_graph_of_tensorrt_answers_as_plain_calls_do(bundle):
    artifact = bundle("onnx", "onnxruntime", "tensorrt")
    options = {"provider": "tensorrt", "largest_batch": 8}
    with opened(artifact, **options) as plain, opened(artifact, **options, cuda_graph=True) as graph:
        for seed in range(3):
            images = images_for(artifact, 8, seed=seed)
            assert_alike(graph.infer(images), plain.infer(images))


def test_calls_that_are_launched_together_answer_as_those_that_wait(bundle):
    artifact = bundle("onnx", "onnxruntime", "cuda")
    images = images_for(artifact, 8)
    with opened(artifact, provider="cuda") as session:
        truth = session.infer(images)
        session.upload(images)
        for _ in range(20):
            session.launch()
        session.wait()
        assert_alike(session.download(), truth)


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_threads_get_their_own_answers(bundle, cuda_graph, shared):
    artifact = bundle("onnx", "onnxruntime", "cuda")
    given = [images_for(artifact, 1 + number % 3, seed=number) for number in range(6)]
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(opened(artifact, provider="cuda"))
        truth = [plain.infer(images) for images in given]
        one = stack.enter_context(opened(artifact, provider="cuda", cuda_graph=cuda_graph))
        sessions = [
            one if shared else stack.enter_context(opened(artifact, provider="cuda", cuda_graph=cuda_graph))
            for _ in given
        ]

        def ask(number):
            return [sessions[number].infer(given[number]) for _ in range(50)]

        with ThreadPoolExecutor(len(given)) as pool:
            answers = list(pool.map(ask, range(len(given))))
    for found, right in zip(answers, truth, strict=True):
        for each in found:
            assert_alike(each, right)


@pytest.mark.parametrize(("format", "runtime", "provider"), CASES)
def test_a_gpu_that_is_not_there_is_an_error(bundle, format, runtime, provider):
    artifact = bundle(format, runtime, provider)
    # In a process of its own: an engine keeps the first GPU that it was given.
    program = """
import sys
from pathlib import Path
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions
artifact, options = read_artifact(Path(sys.argv[1])), RuntimeOptions(provider=sys.argv[3], device=99)
try:
    with RUNTIMES.load(sys.argv[2])().open(artifact, options):
        pass
except EngineError as error:
    print(error.message)
"""
    command = [sys.executable, "-c", program, str(artifact.directory), runtime, provider]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "GPU 99" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_more_than_the_gpus_memory_is_an_error_and_the_session_goes_on(bundle, monkeypatch):
    artifact = bundle("onnx", "onnxruntime", "cuda")
    images = images_for(artifact, 2)
    import onnxruntime

    with opened(artifact, provider="cuda") as session:
        truth = session.infer(images)
        huge = [2**40]  # numbers, 4 TB of them
        monkeypatch.setattr(
            session,
            "_on_device",
            lambda stored: onnxruntime.OrtValue.ortvalue_from_shape_and_type(huge, np.float32, "cuda", 0),
        )
        with pytest.raises(EngineError, match="out of GPU memory"):
            session.infer(images_for(artifact, 3))
        monkeypatch.undo()
        assert_alike(session.infer(images), truth)


def test_tensorrt_builds_an_engine_once(bundle, tmp_path, monkeypatch):
    artifact = bundle("onnx", "onnxruntime", "tensorrt")
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path))
    with opened(artifact, provider="tensorrt") as session:
        assert session.build_ns > 0
        truth = session.infer(images_for(artifact, 8))
    with opened(artifact, provider="tensorrt") as session:
        assert session.build_ns == 0
        assert_alike(session.infer(images_for(artifact, 8)), truth)
        assert session.infer(images_for(artifact, 11)).shape[0] == 11  # more than the engine was built for
