"""Toy files: a text of what the model is, and its weights by their names."""

from __future__ import annotations

import json
import zipfile

import numpy as np

from vit_deploy.errors import ArtifactError
from vit_deploy.formats.graph import Graph, TensorInfo

ESSENTIALS = "essentials"


class ToyExporter:
    """Writes `model.toy`."""

    libraries = ()

    def write(self, checkpoint, artifact, options):
        text = np.array(json.dumps(artifact.essentials()))
        with artifact.model_path.open("wb") as file:
            np.savez(file, **{ESSENTIALS: text}, **checkpoint.weights)


def read(path):
    """The essentials and the weights of a file."""
    try:
        with np.load(path) as arrays:
            held = dict(arrays)
        return json.loads(str(held.pop(ESSENTIALS))), held
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} is no toy file: {error}", fix="export the model again") from error


def read_weights(path):
    return read(path)[1]


def read_graph(path):
    essentials, weights = read(path)
    given, output = (json.loads(essentials[f"vit_deploy.{name}"]) for name in ("input", "output"))
    return Graph(
        inputs=(TensorInfo(given["name"], given["dtype"], tuple(given["shape"])),),
        outputs=(TensorInfo(output["name"], output["dtype"], tuple(output["shape"])),),
        operators={"ViT": 1},
        metadata=essentials,
        facts={"arrays": len(weights)},
    )
