"""Model files that others have exported, held against the checkpoint that they were made from."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from vit_deploy import checkpoints
from vit_deploy.core.synthetic_images import natural_pixels

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "peers"


def written_by(script, *arguments):
    """The files of a script that runs in a process of its own, for its libraries are nothing for this one."""
    path = os.pathsep.join(map(str, (ROOT, PEERS)))
    command = [sys.executable, PEERS / script, *arguments]
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(arguments[-1])


@pytest.fixture(scope="module")
def from_torch(make_checkpoint, tmp_path_factory):
    if missing := [name for name in ("torch", "timm", "onnxscript") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("torch")
    checkpoints.save(make_checkpoint(), folder / "small.safetensors")
    return written_by("foreign_exports.py", folder / "small.safetensors", folder)


@pytest.fixture(scope="module")
def from_tensorflow(keras_file, tmp_path_factory):
    return written_by("plain_tensorflow.py", keras_file, tmp_path_factory.mktemp("tensorflow"))


@pytest.fixture
def by_hand(bundles, tmp_path):
    """Writes an ONNX file of one's own making: the artifact's graph behind another input, without its metadata."""

    def write(name, shape, *, dtype=TensorProto.FLOAT, outputs=("scores",), transpose=None):
        model = onnx.load(bundles["onnx"] / "model.onnx")
        del model.metadata_props[:]
        graph = model.graph
        value, nodes = "anything", []
        if dtype != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [value], ["as_float"], to=TensorProto.FLOAT))
            value = "as_float"
        if transpose:
            nodes.append(helper.make_node("Transpose", [value], ["in_nhwc"], perm=transpose))
            value = "in_nhwc"
        for node in graph.node:
            node.input[:] = [value if tensor_name == "images" else tensor_name for tensor_name in node.input]
        for node in reversed(nodes):
            graph.node.insert(0, node)
        graph.node.extend(helper.make_node("Identity", ["logits"], [output]) for output in outputs)
        del graph.input[:], graph.output[:]
        graph.input.append(helper.make_tensor_value_info("anything", dtype, shape))
        graph.output.extend(helper.make_tensor_value_info(output, TensorProto.FLOAT, ("n", 5)) for output in outputs)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


NCHW = {"transpose": (0, 2, 3, 1)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "batch"), [("dynamo.onnx", "1"), ("script.onnx", "n")])
def test_what_torch_exports_of_timm_is_proven(run, from_torch, name, batch):
    done = run("verify", from_torch / name, "--against", from_torch / "small.safetensors", "--json")
    (result,) = done.document["results"]
    assert done.code == 0 and result["verdict"] == "same" and result["artifact"] == str(from_torch / name)
    assumed = {sentence["field"]: sentence for sentence in result["assumed"]}
    assert {name: value["value"] for name, value in assumed.items()} == {
        "layout": "nchw",
        "input": "normalized by mean [0.5, 0.5, 0.5] and std [0.5, 0.5, 0.5]",
        "output": "scores" if name == "dynamo.onnx" else "y",
        "precision": "fp32",
    }
    assert f"({batch}, 3, 24, 32)" in assumed["layout"]["why"] and assumed["layout"]["why"] in done.err
    asked = {check["name"] for check in result["checks"]}
    assert ("batch of 7" in asked) == (batch == "n") and "zero input" in asked


@pytest.mark.slow
def test_an_altered_weight_in_a_file_of_torch_is_found_and_located(run, from_torch):
    done = run(
        "verify", from_torch / "altered.onnx", "--against", from_torch / "small.safetensors", "--locate", "--json"
    )
    (result,) = done.document["results"]
    assert done.code == 1 and result["verdict"] == "different" and not result["ok"]
    assert result["located"]["tap"] == "block_1.ffn" and "fc1" in result["located"]["operator"]


@pytest.mark.slow
def test_files_of_plain_tensorflow_are_proven(run, from_tensorflow, keras_file):
    names = ["picture", "planes.tflite", "pixels.tflite", "keras.tflite", "integers.tflite"]
    done = run("verify", *(from_tensorflow / one for one in names), "--against", keras_file, "--json")
    results = dict(zip(names, done.document["results"], strict=True))
    values = {
        name: {sentence["field"]: sentence["value"] for sentence in result["assumed"]}
        for name, result in results.items()
    }
    assert [values[name]["layout"] for name in names] == ["nhwc", "nchw", "nhwc", "nhwc", "nchw"]
    assert [values[name]["precision"] for name in names] == ["fp32"] * 4 + ["int8-full"]
    assert values["pixels.tflite"]["input"] == "pixels" and values["picture"]["output"] == "scores"
    assert [results[name]["verdict"] for name in names[:4]] == ["same"] * 4
    assert results["integers.tflite"]["metrics"]["cosine"] > 0.9


@pytest.mark.slow
def test_a_file_that_lost_its_weights_is_different_and_says_why_it_is_not_looked_into(run, from_tensorflow, keras_file):
    done = run("verify", from_tensorflow / "lost.tflite", "--against", keras_file, "--locate")
    assert done.code == 1 and "NaN" in done.err and "cannot look into" in done.err
    assert "what another one moved is not known" in done.err


@pytest.mark.slow
def test_a_float_input_of_pixels_is_right_once_it_is_said(run, from_tensorflow, keras_file):
    assert run("verify", from_tensorflow / "bright", "--against", keras_file).code == 1
    assert run("verify", from_tensorflow / "bright", "--against", keras_file, "--values", "pixels").code == 0


def test_other_names_and_planes_and_half_floats_and_pixels_are_taken(run, by_hand, keras_file):
    planes = by_hand("planes.onnx", ("n", 3, 24, 32), **NCHW)
    half = by_hand("half.onnx", (2, 24, 32, 3), dtype=TensorProto.FLOAT16)
    done = run("verify", planes, half, "--against", keras_file, "--json")
    assert done.code == 0
    assert [result["precision"] for result in done.document["results"]] == ["fp32", "fp16"]


def test_the_images_of_a_folder_can_be_compared_on(run, by_hand, keras_file, tmp_path):
    for index, picture in enumerate(natural_pixels(3, 40, 30, 3)):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "photos" / f"{index}.png")
    path = by_hand("planes.onnx", ("n", 3, 24, 32), **NCHW)
    assert run("verify", path, "--against", keras_file, "--images", tmp_path / "photos").code == 0


def test_a_file_can_be_held_against_a_bundle(run, by_hand, bundles):
    assert run("verify", by_hand("a.onnx", ("n", 24, 32, 3)), "--against", bundles["tflite"]).code == 0


def test_a_layout_that_both_readings_fit_is_asked_for(run, by_hand, keras_file):
    path = by_hand("open.onnx", ("a", "b", "c", "d"), **NCHW)
    done = run("verify", path, "--against", keras_file)
    assert done.code == 2 and "fit that in both layouts" in done.err and "--layout nhwc or --layout nchw" in done.err
    assert run("verify", path, "--against", keras_file, "--layout", "nchw").code == 0
    named = by_hand("named.onnx", ("batch", "num_channels", "height", "width"), **NCHW)
    assert run("verify", named, "--against", keras_file).code == 0


def test_one_of_several_outputs_is_asked_for(run, by_hand, keras_file):
    path = by_hand("two.onnx", ("n", 24, 32, 3), outputs=("first", "second"))
    done = run("verify", path, "--against", keras_file)
    assert done.code == 2 and "has 2 outputs: first float32 (n, 5); second" in done.err and "--output NAME" in done.err
    assert run("verify", path, "--against", keras_file, "--output", "second").code == 0
    done = run("verify", path, "--against", keras_file, "--output", "third")
    assert done.code == 2 and "has no output third" in done.err


def test_another_size_and_other_classes_are_said(run, by_hand, keras_file, make_checkpoint, tmp_path):
    done = run("verify", by_hand("large.onnx", (1, 3, 48, 64), **NCHW), "--against", keras_file)
    assert done.code == 2 and "(1, 3, 48, 64)" in done.err and "are 24x32 (height x width) of 3 channels" in done.err
    checkpoints.save(make_checkpoint(num_classes=7), tmp_path / "seven.safetensors")
    done = run("verify", by_hand("five.onnx", (1, 24, 32, 3)), "--against", tmp_path / "seven.safetensors")
    assert done.code == 2 and "gives scores float32 (n, 5)" in done.err and "(7,) classes an image" in done.err


def test_without_a_checkpoint_a_bare_file_cannot_be_proven(run, by_hand, bundles, keras_file):
    done = run("verify", by_hand("a.onnx", ("n", 24, 32, 3)))
    assert done.code == 2 and "add --against CHECKPOINT" in done.err
    done = run("verify", bundles["onnx"], "--layout", "nchw")
    assert done.code == 2 and "--layout is said of bare files, and there is none" in done.err


def test_a_file_of_ours_that_left_its_bundle_says_itself_what_it_takes(run, bundles, keras_file, tmp_path):
    path = shutil.copy(bundles["tflite"] / "model.tflite", tmp_path / "lost.tflite")
    assert run("verify", path, "--against", keras_file).code == 0
    done = run("verify", path, "--against", keras_file, "--layout", "nhwc")
    assert done.code == 2 and "says itself what it takes" in done.err


@pytest.mark.slow
def test_bare_files_are_timed_without_a_checkpoint(run, by_hand, from_tensorflow):
    paths = [by_hand("planes.onnx", ("n", 3, 24, 32), **NCHW), from_tensorflow / "pixels.tflite"]
    paths.append(from_tensorflow / "picture")
    done = run("bench", *paths, "--runs", "2", "--runtime", "onnxruntime", "--json")
    assert done.code == 2 and "onnxruntime does not run" in done.document["error"]["message"]
    document = run("bench", *paths, "--runs", "2", "--batch", "2", "--json").document
    assert {result["artifact"] for result in document["results"]} == set(map(str, paths))
    assert all(len(result["samples_ns"]) == 2 for result in document["results"])


def test_a_bare_file_is_timed_without_a_checkpoint(run, by_hand):
    path = by_hand("planes.onnx", ("n", 3, 24, 32), **NCHW)
    [result] = run("bench", path, "--runtime", "onnxruntime", "--runs", "2", "--json").document["results"]
    assert result["artifact"] == str(path) and len(result["samples_ns"]) == 2


def test_a_file_of_no_fixed_size_cannot_be_timed(run, by_hand):
    done = run("bench", by_hand("open.onnx", ("n", 3, "h", "w"), **NCHW), "--runs", "2")
    assert done.code == 2 and "images of no fixed size" in done.err


def test_what_is_no_image_is_refused(run, keras_file, tmp_path):
    def saved(name, shape, inputs=1):
        values = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i in range(inputs)]
        node = helper.make_node("Identity", ["x0"], ["y"])
        graph = helper.make_graph([node], name, values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)])
        onnx.save(helper.make_model(graph), tmp_path / name)
        return tmp_path / name

    done = run("verify", saved("flat.onnx", (1, 768)), "--against", keras_file)
    assert done.code == 2 and "takes x0 float32 (1, 768); expected images" in done.err
    done = run("verify", saved("two.onnx", (1, 24, 32, 3), inputs=2), "--against", keras_file)
    assert done.code == 2 and "has 2 inputs" in done.err
    (tmp_path / "broken.onnx").write_bytes(np.random.default_rng(0).bytes(100))
    done = run("verify", tmp_path / "broken.onnx", "--against", keras_file)
    assert done.code == 2 and "Traceback" not in done.err
