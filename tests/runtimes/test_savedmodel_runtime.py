from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

from vit_deploy.core.manifest import write_manifest
from vit_deploy.errors import EngineError
from vit_deploy.performance import worker
from vit_deploy.runtimes import DeviceRuntime, DeviceSession, RuntimeOptions
from vit_deploy.runtimes.tensorflow import runtime
from vit_deploy.runtimes.tensorflow.runtime import SavedModelRuntime


def write_model(artifact, weight, *, output="logits", signature="serving_default"):
    module = tf.Module()
    module.kernel = tf.Variable(weight)

    def serve(images):
        return {output: tf.matmul(tf.reshape(images, (-1, len(weight))), module.kernel)}

    spec = tf.TensorSpec(artifact.input.shape, tf.float32, name="images")
    concrete = tf.function(serve, input_signature=[spec], autograph=False).get_concrete_function()
    tf.saved_model.save(module, str(artifact.model_path), signatures={signature: concrete})
    return artifact


@pytest.mark.parametrize("batch", [None, 3])
def test_any_number_of_images_goes_through_any_batch(make_artifact, weight, seven_images, batch):
    artifact = write_model(make_artifact("savedmodel", batch), weight)
    with SavedModelRuntime().open(artifact) as session:
        assert session.provider == ("cuda" if tf.config.list_physical_devices("GPU") else "cpu")
        for count in (1, 2, 7):
            outputs = session.infer(seven_images[:count])
            assert outputs.dtype == np.float32
            np.testing.assert_allclose(outputs, seven_images[:count].reshape(count, -1) @ weight, atol=1e-4)


def test_a_missing_or_corrupt_folder_is_an_error_with_its_path(make_artifact, weight):
    artifact = make_artifact("savedmodel")
    with pytest.raises(EngineError, match=str(artifact.model_path)):
        SavedModelRuntime().open(artifact).__enter__()
    write_model(artifact, weight)
    for name in ("variables/variables.index", "saved_model.pb"):
        (artifact.model_path / name).write_bytes(b"not this")
        with pytest.raises(EngineError, match=str(artifact.model_path)):
            SavedModelRuntime().open(artifact).__enter__()


def test_a_folder_that_is_not_the_bundles_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("savedmodel"), weight, output="features")
    with pytest.raises(EngineError, match="has no output logits; it has features"):
        SavedModelRuntime().open(artifact).__enter__()
    write_model(artifact, weight, signature="other")
    with pytest.raises(EngineError, match="has no signature serving_default"):
        SavedModelRuntime().open(artifact).__enter__()


def test_threads_come_too_late_once_tensorflow_runs(make_artifact, weight):
    artifact = write_model(make_artifact("savedmodel"), weight)
    with pytest.raises(EngineError, match=r"cannot take 1 threads any more(?s:.*)process of its own"):
        SavedModelRuntime().open(artifact, RuntimeOptions(threads=1)).__enter__()


def test_a_provider_that_is_not_there_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("savedmodel"), weight)
    with pytest.raises(EngineError, match="has no provider 'npu' here"):
        SavedModelRuntime().open(artifact, RuntimeOptions(provider="npu")).__enter__()


@pytest.mark.slow
def test_a_fresh_process_without_keras_takes_threads(make_artifact, weight, seven_images):
    artifact = write_manifest(write_model(make_artifact("savedmodel"), weight))
    program = """
import importlib.machinery, json, sys
from pathlib import Path

class PathWithoutKeras:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tf_keras"):
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = PathWithoutKeras
import numpy as np
from vit_deploy.core.manifest import read_artifact
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions
with RUNTIMES.load("savedmodel")().open(read_artifact(Path(sys.argv[1])), RuntimeOptions(threads=1)) as session:
    outputs = session.infer(np.ones((2, 6, 5, 3), np.float32))
import tensorflow as tf
print(json.dumps([outputs.tolist(), tf.config.threading.get_intra_op_parallelism_threads(), "keras" in sys.modules]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(artifact.directory)], capture_output=True, text=True, check=True
    )
    outputs, threads, has_keras = json.loads(done.stdout)
    np.testing.assert_allclose(outputs, np.ones((2, 90)) @ weight, atol=1e-4)
    assert threads == 1
    assert not has_keras
    assert done.stderr == ""


def test_operators_are_counted_where_they_run():
    kernel = tf.Variable(np.ones((6, 4), np.float32))
    run = tf.function(lambda images: tf.nn.softmax(images @ kernel), autograph=False)
    counts = runtime.placement(lambda: run(tf.ones((2, 6))))
    assert counts.keys() == {"cpu"}
    assert counts["cpu"] >= 3  # the variable is read, multiplied, and softmax


@pytest.fixture
def pretended_gpu(monkeypatch):
    """A TensorFlow whose first GPU is its CPU; what it counts there is the test's to say."""
    found = {}
    monkeypatch.setattr(runtime, "apply", lambda engine, options: "cuda")
    monkeypatch.setattr(runtime, "DEVICES", {"cuda": "/CPU:0"})
    monkeypatch.setattr(runtime, "placement", lambda call: call() is None or dict(found))
    return found


@pytest.mark.parametrize("batch", [None, 3])
def test_on_a_device_a_call_is_made_of_its_steps(make_artifact, weight, seven_images, pretended_gpu, batch):
    pretended_gpu.update(cuda=3, cpu=1)
    artifact = write_model(make_artifact("savedmodel", batch), weight)
    with SavedModelRuntime().open(artifact) as session:
        assert isinstance(session, DeviceSession)
        assert session.provider == "cuda" and session.placement == {"cuda": 3, "cpu": 1}
        truth = seven_images.reshape(7, -1) @ weight
        np.testing.assert_allclose(session.infer(seven_images), truth, atol=1e-4)
        session.upload(seven_images[2:7])
        for _ in range(2):  # what was uploaded stays
            session.compute()
        np.testing.assert_allclose(session.download(), truth[2:7], atol=1e-4)


def test_the_call_that_shows_what_runs_where_is_the_first_and_no_part_of_loading(
    make_artifact, weight, pretended_gpu, monkeypatch
):
    pretended_gpu.update(cuda=3)
    artifact = write_model(make_artifact("savedmodel"), weight)
    monkeypatch.setattr(runtime, "placement", lambda call: time.sleep(0.5) or call() is None or {"cuda": 3})
    with SavedModelRuntime().open(artifact) as session:
        assert 0.5e9 <= worker.trial(session)[0] < 30e9
    case = {"artifact": str(write_manifest(artifact).directory), "runtime": "savedmodel", "batch": 1}
    monkeypatch.setattr(worker, "golden_images", lambda artifact: np.zeros((1, 6, 5, 3), np.float32))
    with worker._opened({**case, "threads": None, "provider": None}) as (_, _, facts):
        assert facts["first_ms"] >= 500 > facts["load_ms"] + 1
    pretended_gpu.clear()


def test_a_gpu_that_takes_nothing_is_an_error_that_says_what_ran_where(make_artifact, weight, pretended_gpu):
    pretended_gpu.update(cpu=4)
    artifact = write_model(make_artifact("savedmodel"), weight)
    with pytest.raises(EngineError, match=r"cuda takes none of the 4 operators of .*: 4 on cpu"):
        SavedModelRuntime().open(artifact).__enter__()


def test_threads_that_share_a_session_on_a_device_get_their_own_answers(make_artifact, weight, pretended_gpu):
    pretended_gpu.update(cuda=3)
    images = [np.full((1 + number % 3, 6, 5, 3), number, np.float32) for number in range(6)]
    artifact = write_model(make_artifact("savedmodel"), weight)
    with SavedModelRuntime().open(artifact) as session, ThreadPoolExecutor(6) as pool:

        def ask(number):
            truth = images[number].reshape(len(images[number]), -1) @ weight
            return [np.abs(session.infer(images[number]) - truth).max() for _ in range(30)]

        assert max(each for found in pool.map(ask, range(6)) for each in found) < 1e-3


def test_streams_of_tensorflow_are_said_to_share_one(make_artifact, weight, pretended_gpu):
    pretended_gpu.update(cuda=3)
    with SavedModelRuntime().open(write_model(make_artifact("savedmodel"), weight)) as session:
        assert any("one stream of the GPU" in note for note in session.notes)


def test_preparing_opens_the_device(pretended_gpu):
    assert isinstance(SavedModelRuntime(), DeviceRuntime)
    SavedModelRuntime().prepare(RuntimeOptions(provider="cuda"))


def test_a_device_whose_memory_is_full_is_told(make_artifact, weight, seven_images, pretended_gpu, monkeypatch):
    pretended_gpu.update(cuda=3)
    with SavedModelRuntime().open(write_model(make_artifact("savedmodel"), weight)) as session:

        def fail(*given):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor\n[[{{node x}}]]")

        monkeypatch.setattr(tf, "identity", fail)
        with pytest.raises(EngineError, match=r"out of memory\n  fix: take a smaller batch"):
            session.infer(seven_images)
