"""`export --output NAME`, and what the other commands make of such files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from vit_deploy import api, checkpoints
from vit_deploy.core.manifest import sha256


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    """Two files: one with logits among its outputs, and one without."""
    folder = tmp_path_factory.mktemp("outputs")
    checkpoints.save(make_checkpoint(), folder / "model.safetensors")
    for name, outputs in (("both", ("logits", "map", "block_0.attention")), ("maps", ("map", "class_token"))):
        api.export(folder / "model.safetensors", folder / name, formats="onnx", outputs=outputs)
    return folder


def test_the_document_of_an_export_tells_of_every_output(run, made, tmp_path):
    done = run("export", made / "model.safetensors", "-f", "onnx", "--output", "map,logits", "-o", tmp_path, "--json")
    [result] = json.loads(done.out)["results"]
    assert set(result["outputs"]) == {"map", "logits"} and result["parity"]["ok"]


def test_verify_tells_of_every_output(run, made):
    done = run("verify", made / "both" / "onnx-fp32", "--json")
    [result] = json.loads(done.out)["results"]
    assert done.code == 0
    assert list(result["outputs"]) == ["logits", "map", "block_0.attention"]
    assert all(output["ok"] and output["tolerance"] for output in result["outputs"].values())
    assert {"metrics", "tolerance", "worst_index"} <= result.keys()


def test_a_checkpoint_gives_the_outputs_that_a_file_is_compared_with(run, made):
    for name in ("both", "maps"):
        done = run("verify", made / name / "onnx-fp32", "--against", made / "model.safetensors", "--json")
        assert done.code == 0, done.err
        assert all(output["ok"] for output in json.loads(done.out)["results"][0]["outputs"].values())


def test_inspect_lists_the_outputs(run, made):
    done = run("inspect", made / "both" / "onnx-fp32")
    assert "map (3, 8, 12) an image" in done.out and "block_0.attention (3, 25, 25) an image" in done.out


def test_embed_writes_the_output_that_is_named(run, made, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((24, 32, 3), 90, np.uint8)).save(tmp_path / "photos" / "1.png")
    (tmp_path / "photos" / "2.png").write_bytes(b"broken")
    bundle = made / "both" / "onnx-fp32"
    with api.session(bundle) as session:
        expected = session.infer_outputs(api.read_images(bundle, tmp_path / "photos" / "1.png"))
    for name, shape in (("map", (3, 8, 12)), ("block_0.attention", (3, 25, 25)), ("logits", (5,))):
        file = tmp_path / f"{name}.npy"
        options = ("--data", tmp_path / "photos", "--workers", "0", "--output", name, "-o", file)
        assert run("embed", bundle, *options).code == 1
        found = np.load(file)
        assert found.shape == (2, *shape) and np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[0], expected[name][0])


def test_predict_reads_logits_or_says_that_there_are_none(run, made, tmp_path):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "image.png")
    assert run("predict", made / "both" / "onnx-fp32", tmp_path / "image.png").code == 0
    done = run("predict", made / "maps" / "onnx-fp32", tmp_path / "image.png")
    assert done.code == 2 and "gives map, " in done.err and "--output logits as well" in done.err


def test_a_name_that_is_not_there_is_refused_with_the_nearest(run, made, tmp_path):
    done = run("export", made / "model.safetensors", "--output", "blck_1.map", "-o", tmp_path / "none")
    assert done.code == 2
    assert "there is no output 'blck_1.map'" in done.err and "did you mean 'block_1.map'?" in done.err
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_bench_and_quantize_and_compare_take_such_files(run, made, tmp_path):
    bench = run("bench", made / "both" / "onnx-fp32", "--runs", "2", "--json")
    assert bench.code == 0, bench.err
    quantized = run("quantize", made / "both" / "onnx-fp32", "-p", "int8", "-o", tmp_path, "--json")
    assert quantized.code == 0, quantized.err
    assert set(json.loads(quantized.out)["results"][0]["outputs"]) == {"logits", "map", "block_0.attention"}
    compared = run("compare", made / "both" / "onnx-fp32", tmp_path / "onnx-int8", "--json")
    assert compared.code in (0, 1), compared.err


@pytest.mark.parametrize("name", ["both", "maps"])
def test_a_sound_file_is_located_nowhere_and_a_broken_one_where_it_breaks(run, made, tmp_path, name):
    shutil.copytree(made / name / "onnx-fp32", folder := tmp_path / "onnx-fp32")
    graph = onnx.load(folder / "model.onnx")
    [weight] = [tensor for tensor in graph.graph.initializer if tensor.name == "block_1.ffn.down.bias"]
    values = onnx.numpy_helper.to_array(weight) + np.linspace(0, 1, 12, dtype=np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(graph, folder / "model.onnx")
    manifest = json.loads((folder / "artifact.json").read_text(encoding="utf-8"))
    manifest["files"]["model.onnx"] = {
        "sha256": sha256(folder / "model.onnx"),
        "bytes": (folder / "model.onnx").stat().st_size,
    }
    (folder / "artifact.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = run("verify", folder, "--locate", "--json")
    assert done.code == 1, done.err
    assert json.loads(done.out)["results"][0]["located"]["tap"] == "block_1.ffn"
