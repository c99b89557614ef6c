"""An ONNX artifact whose weights are to be read from elsewhere is refused by every command, before they are read."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import onnx
import pytest
from PIL import Image

from vit_deploy.core.manifest import read_artifact, write_manifest

COMMANDS = {
    "verify": ("verify", "{bundle}"),
    "against": ("verify", "{good}", "--against", "{bundle}"),
    "bench": ("bench", "{bundle}", "--runs", "1"),
    "inspect": ("inspect", "{bundle}"),
    "quantize": ("quantize", "{bundle}", "--precision", "int8", "-o", "{out}"),
    "compare": ("compare", "{good}", "{bundle}"),
    "predict": ("predict", "{bundle}", "{photo}"),
    "evaluate": ("evaluate", "{bundle}", "--data", "{data}"),
    "bundle": ("bundle", "{bundle}", "-o", "{out}.tar.gz"),
    "card": ("card", "{bundle}", "-o", "{out}.md"),
}


@pytest.fixture(scope="module")
def elsewhere(bundles, tmp_path_factory):
    """Gives an artifact whose weights lie beside its folder, where `location` says so."""
    root = tmp_path_factory.mktemp("elsewhere")
    model = onnx.load(bundles["onnx"] / "model.onnx")
    onnx.save_model(model, root / "given.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)

    def make(name, location):
        folder = shutil.copytree(bundles["onnx"], root / name)
        artifact = read_artifact(folder)
        moved = onnx.load(root / "given.onnx", load_external_data=False)
        for tensor in moved.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location.format(root=root, folder=folder)
        if name == "link":
            (folder / "inside").symlink_to(root)
        if name == "absolute inside":
            shutil.copy(root / "weights.bin", folder)
        (folder / "model.onnx").write_bytes(moved.SerializeToString())
        write_manifest(artifact)
        return folder

    locations = {
        "above": "../weights.bin",
        "absolute": "{root}/weights.bin",
        "absolute inside": "{folder}/weights.bin",
        "link": "inside/weights.bin",
    }
    return {name: make(name, location) for name, location in locations.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pixels = np.zeros((2, 24, 32, 3), np.uint8)
    Image.fromarray(pixels[0]).save(folder / "photo.png")
    np.savez(folder / "data.npz", images=pixels, labels=np.arange(2))
    return folder


@pytest.mark.parametrize("kind", ["above", "absolute", "absolute inside", "link"])
def test_weights_outside_of_the_bundle_are_refused_by_every_command(run, elsewhere, bundles, data, tmp_path, kind):
    names = {"bundle": elsewhere[kind], "good": bundles["onnx"], "photo": data / "photo.png", "out": tmp_path / "out"}
    names["data"] = data / "data.npz"
    for name, command in COMMANDS.items():
        if name == "bench" and kind != "above":
            continue  # it asks in a process of its own, which takes a second
        said = run(*(word.format(**names) for word in command))
        assert said.code == 2, (command, said.out)
        assert "keeps weights outside its" in said.err and said.err.count("vit-deploy: ") == 1, (command, said.err)
        assert not list(tmp_path.iterdir())


def test_weights_of_many_links_are_one_error(run, elsewhere, bundles, tmp_path):
    folder = shutil.copytree(elsewhere["above"], tmp_path / "hard")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.removeprefix("../")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "weights.bin").hardlink_to(elsewhere["above"].parent / "weights.bin")
    write_manifest(dataclasses.replace(read_artifact(bundles["onnx"]), directory=folder))
    said = run("quantize", folder, "--precision", "int8", "-o", tmp_path / "out")
    assert said.code == 2 and said.err.count("vit-deploy: ") == 1 and not (tmp_path / "out").exists()
