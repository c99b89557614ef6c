"""Every command prints the document of the function of its name, and takes the same with the same defaults."""

from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from vit_deploy import checkpoints, cli
from vit_deploy.core.options import EvaluateOptions, PredictOptions
from vit_deploy.core.options.commands import BenchOptions, ProofOptions
from vit_deploy.core.options.option import described
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.performance.latency import FIGURES
from vit_deploy.performance.options import BaselineOptions
from vit_deploy.remote.options import HostOptions
from vit_deploy.verification.options import ReferenceOptions, ReportFiles, ToleranceOptions

# What no two runs have in common, by the name of the field.
MEASURED = {
    *FIGURES,
    *(
        "profile",
        "seconds",
        "samples_ns",
        "round_ns",
        "round_calls",
        "preprocess_ns",
        "p50_interval_ms",
        "ratio_interval",
    ),
    *("ratio", "warmup_calls", "flat", "idle", "resting_rss_mb", "energy_j", "notes", "unsteady", "failures"),
    *("load_1m", "competing", "cpu_mhz", "temperature_c", "throttled"),
}


def without_measured(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: None if name in MEASURED else without_measured(each) for name, each in value.items()}
    return [without_measured(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def document(capfd: pytest.CaptureFixture[str]) -> Any:
    """The document that a command prints."""

    def run(*words: object) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        code = cli.run([*map(str, words), "--json"])
        said = capfd.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out)

    return run


@pytest.fixture(scope="module")
def inputs(bundles, make_checkpoint, tmp_path_factory):
    """Paths that the commands are given."""
    folder = tmp_path_factory.mktemp("inputs")
    for index, pixels in enumerate(natural_pixels(4, 24, 32, 3)):
        (folder / "images").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    np.savez(folder / "data.npz", images=natural_pixels(4, 24, 32, 3), labels=np.arange(4))
    checkpoints.save(make_checkpoint(), folder / "small.safetensors")
    checkpoints.save(make_checkpoint(num_classes=4), folder / "other.safetensors")
    onnx, tflite = bundles["onnx"], bundles["tflite"]
    timed = vit_deploy.bench(onnx, runtime="onnxruntime", runs=2, save=folder / "bench.json")
    assert timed.ok
    return {"onnx": onnx, "tflite": tflite, **{path.name: path for path in folder.iterdir()}}


CALLS = {
    "verify": (
        ["verify", "@onnx", "@tflite"],
        lambda at: vit_deploy.verify([at["onnx"], at["tflite"]]),
    ),
    "verify against a checkpoint": (
        ["verify", "@onnx", "--against", "@small.safetensors", "--quick", "--images", "@images", "--threads", "1,2"],
        lambda at: vit_deploy.verify(
            at["onnx"], against=at["small.safetensors"], quick=True, images=at["images"], threads=(1, 2)
        ),
    ),
    "verify what fails": (
        ["verify", "@tflite", "--tolerance", "max_abs=1e-12", "--quick", "--locate"],
        lambda at: vit_deploy.verify(str(at["tflite"]), tolerance={"max_abs": 1e-12}, quick=True, locate=True),
    ),
    "bench": (
        ["bench", "@onnx", "--runtime", "onnxruntime", "--batch", "1,2", "--runs", "2", "--profile"],
        lambda at: vit_deploy.bench(at["onnx"], runtime="onnxruntime", batch=(1, 2), runs=2, profile=True),
    ),
    "evaluate": (
        ["evaluate", "@onnx", "@tflite", "--data", "@data.npz", "--threads", "1"],
        lambda at: vit_deploy.evaluate([at["onnx"], at["tflite"]], at["data.npz"], threads=1),
    ),
    "evaluate against a checkpoint": (
        ["evaluate", "@onnx", "--data", "@data.npz", "--against", "@small.safetensors", "--std", "0.4"],
        lambda at: vit_deploy.evaluate(
            at["onnx"],
            at["data.npz"],
            against=at["small.safetensors"],
            reading=vit_deploy.CheckpointOptions(std=0.4),
        ),
    ),
    "predict": (
        ["predict", "@onnx", "@images", "--top", "2"],
        lambda at: vit_deploy.predict(at["onnx"], at["images"], top=2),
    ),
    "predict by a checkpoint": (
        ["predict", "@small.safetensors", "@images", "--mean", "0.4"],
        lambda at: vit_deploy.predict(
            at["small.safetensors"], at["images"], reading=vit_deploy.CheckpointOptions(mean=0.4)
        ),
    ),
    "compare": (
        ["compare", "@small.safetensors", "@other.safetensors"],
        lambda at: vit_deploy.compare(at["small.safetensors"], at["other.safetensors"]),
    ),
    "inspect": (["inspect", "@onnx", "--snippet"], lambda at: vit_deploy.inspect(at["onnx"], snippet=True)),
    "inspect a checkpoint": (
        ["inspect", "@small.safetensors"],
        lambda at: vit_deploy.inspect(at["small.safetensors"]),
    ),
    "report": (
        ["report", "@bench.json", "-o", "r.md", "-o", "r.csv", "--force"],
        lambda at: vit_deploy.report(at["bench.json"], ["r.md", "r.csv"], force=True),
    ),
    "bundle": (
        ["bundle", "@onnx", "-o", "b.tar.gz", "--force"],
        lambda at: vit_deploy.bundle(at["onnx"], "b.tar.gz", force=True),
    ),
    "card": (
        ["card", "@onnx", "-o", "README.md", "--results", "@bench.json", "--force"],
        lambda at: vit_deploy.card(at["onnx"], "README.md", results=at["bench.json"], force=True),
    ),
    "doctor": (["doctor"], lambda at: vit_deploy.doctor()),
}


# Of `bench` there is its form among the quick tests of documents.
@pytest.mark.parametrize(
    "name", [name if name != "bench" else pytest.param(name, marks=pytest.mark.slow) for name in CALLS]
)
def test_a_command_prints_the_document_of_its_function(name, document, inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, call = CALLS[name]
    code, printed = document(*(inputs[word[1:]] if word.startswith("@") else word for word in words))
    found = call(inputs)
    assert without_measured(found.to_dict()) == without_measured(printed)
    assert code == (0 if found.ok else 1) and found.command == words[0]
    assert len(found.results) == len(found.records) == len(printed["results"]) > 0


OPTIONS = {
    "verify": (ProofOptions, ReferenceOptions, ToleranceOptions, ReportFiles, HostOptions),
    "bench": (BenchOptions, BaselineOptions, HostOptions),
    "evaluate": (EvaluateOptions, HostOptions),
    "predict": (PredictOptions, HostOptions),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_function_takes_every_option_of_its_command_with_the_same_default(name):
    parameters = inspect.signature(getattr(vit_deploy, name)).parameters
    for option in (field for group in OPTIONS[name] for field in described(group)):
        default = parameters[option.name].default
        assert default == option.default or (default is None and option.default == ()), option.name
