"""Provider, device, threads and CUDA graphs reach the engine from every command that runs a model."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from vit_deploy.errors import ConfigError
from vit_deploy.remote import device, hosts, unpacked, work
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.runtime import OnnxRuntime


@pytest.fixture
def opened(monkeypatch):
    """What sessions are opened with; each runs on the CPU and says that it runs where it was asked to."""
    seen = []
    real = OnnxRuntime.open

    @contextlib.contextmanager
    def open(self, artifact, options=RuntimeOptions()):
        seen.append(options)
        with real(self, artifact, RuntimeOptions(threads=options.threads)) as session:
            session.provider = options.provider or "cpu"
            yield session

    monkeypatch.setattr(OnnxRuntime, "open", open)
    return seen


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npz"
    rng = np.random.default_rng(5)
    np.savez(path, images=rng.integers(0, 256, (6, 24, 32, 3), np.uint8), labels=rng.integers(0, 5, 6))
    return path


ON_A_GPU = ("--runtime", "onnxruntime", "--provider", "cuda", "--device", 1)


def test_evaluate_runs_where_it_is_told(run, bundles, data, opened):
    said = run("evaluate", bundles["onnx"], "--data", data, *ON_A_GPU, "--threads", 2, "--batch", 4, "--json")
    assert said.code == 0, said.err
    assert said.document["results"][0]["provider"] == "cuda"
    (options,) = opened
    assert (options.provider, options.device, options.threads, options.largest_batch) == ("cuda", 1, 2, 4)


def test_predict_runs_where_it_is_told(run, bundles, photo, opened):
    said = run("predict", bundles["onnx"], photo, *ON_A_GPU, "--threads", 2, "--json")
    assert said.code == 0, said.err
    (options,) = opened
    assert (options.provider, options.device, options.threads) == ("cuda", 1, 2)


def test_verify_runs_where_it_is_told(run, bundles, opened):
    said = run("verify", bundles["onnx"], *ON_A_GPU, "--cuda-graph", "--quick", "--json")
    assert said.code == 0, said.err
    (options,) = opened
    assert (options.provider, options.device, options.cuda_graph) == ("cuda", 1, True)


def test_programs_say_where_a_bundle_runs(bundles, opened):
    where = {"runtime": "onnxruntime", "provider": "cuda", "device": 1, "cuda_graph": True}
    assert vit_deploy.verify(bundles["onnx"], quick=True, **where).result.provider == "cuda"
    with vit_deploy.session(bundles["onnx"], threads=2, **where) as session:
        assert session.provider == "cuda"
    asked = [(each.provider, each.device, each.cuda_graph, each.threads) for each in opened]
    assert asked == [("cuda", 1, True, None), ("cuda", 1, True, 2)]
    with pytest.raises(ConfigError, match=r"--device 1 is for GPUs, and .* runs on cpu"):
        vit_deploy.session(bundles["onnx"], device=1).__enter__()


def test_another_machine_is_told_the_same(run, bundles, opened, monkeypatch):
    asked = []

    def run_on(host, package, arguments, *others, **where):
        asked.append(arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(hosts, "run_on", run_on)
    run("verify", bundles["onnx"], *ON_A_GPU, "--cuda-graph", "--on", "ssh://nobody@localhost", "--json")
    (arguments,) = asked
    options = device._parser().parse_args(arguments)
    monkeypatch.setattr(unpacked, "listing", lambda: [(bundles["onnx"], "there")])
    (record,), ok = work.verify(options)
    assert ok and record["provider"] == "cuda" and record["artifact"] == "there"
    assert [(each.device, each.cuda_graph) for each in opened[:1]] == [(1, True)]


@pytest.mark.parametrize("command", ["verify", "evaluate", "predict"])
def test_options_of_a_gpu_that_say_nothing_on_the_cpu_are_refused(run, command, bundles, data, photo):
    more = {"verify": ["--quick"], "evaluate": ["--data", data], "predict": [photo]}[command]
    said = run(command, bundles["onnx"], *more, "--device", 1, "--json")
    assert said.code == 2
    assert said.document["error"]["message"] == f"--device 1 is for GPUs, and {bundles['onnx']} runs on cpu"
    if command == "verify":
        said = run("verify", bundles["tflite"], "--device", 1, "--cuda-graph", "--json")
        assert "--device 1 and --cuda-graph are for GPUs" in said.document["error"]["message"]


def test_a_runtime_that_does_not_take_the_format_is_refused(run, bundles, data):
    said = run("evaluate", bundles["onnx"], bundles["tflite"], "--data", data, "--runtime", "onnxruntime", "--json")
    assert said.code == 2
    assert said.document["error"]["message"].startswith("onnxruntime does not run")


def test_a_checkpoint_takes_no_provider(run, keras_file, photo):
    said = run("predict", keras_file, photo, "--provider", "cuda", "--json")
    assert said.code == 2
    assert "is a checkpoint, which NumPy runs" in said.document["error"]["message"]
