"""The contents of a checkpoint, a model file or an artifact, wherever it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core import cost
from vit_deploy.core.artifact import (
    ESSENTIAL,
    MANIFEST,
    PLAN_SUFFIXES,
    Artifact,
    InputSpec,
    describe,
    from_essentials,
    read_artifact,
)
from vit_deploy.errors import ArtifactError
from vit_deploy.formats import accelerators, onnx_graph, savedmodel, tensorrt_plan, tflite
from vit_deploy.formats.cuda_operators import OnCuda, on_cuda
from vit_deploy.formats.graph import Graph
from vit_deploy.formats.onnx_file import external_locations, refuse_outside_data
from vit_deploy.formats.snippet import snippet
from vit_deploy.formats.tflite.file import IDENTIFIER

BUNDLE, CHECKPOINT, MODEL = "bundle", "checkpoint", "model file"

READERS: Mapping[str, Callable[[Path], Graph]] = {
    "onnx": onnx_graph.read_graph,
    "tflite": tflite.read_graph,
    "savedmodel": savedmodel.read_graph,
    "tensorrt": tensorrt_plan.read_graph,
}


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Args:
        path: the path as it was given.
        kind: "bundle", "checkpoint" or "model file".
        format: "onnx", "tflite", "savedmodel", "tensorrt"; of a checkpoint its suffix, "keras" or "safetensors".
        bytes: the size of the model files.
        artifact: what the manifest, the checkpoint, or the model file itself says; None for a foreign file.
        graph: what the model file holds; None for a checkpoint.
        notes: what is odd, in words.
        model: the TFLite file, whose fallbacks on accelerators can be told; None of other formats.
    """

    path: Path
    kind: str
    format: str
    bytes: int
    artifact: Artifact | None
    graph: Graph | None
    notes: tuple[str, ...] = ()
    model: Path | None = None

    @property
    def num_parameters(self) -> int | None:
        """The number of parameters of the recorded config."""
        return None if self.artifact is None else cost.num_parameters(self.artifact.config)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates for one image, of the recorded config."""
        return None if self.artifact is None else cost.macs(self.artifact.config)

    @property
    def on_cuda(self) -> tuple[OnCuda, ...] | None:
        """What CUDA does with the quantized operators of an ONNX file; None of other formats."""
        return on_cuda(self.graph.operators) if self.format == "onnx" and self.graph is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not recorded is null."""
        said, graph = self.artifact, self.graph
        return {
            "path": str(self.path),
            "kind": self.kind,
            "format": self.format,
            "precision": None if said is None else said.precision,
            "made_for": None if said is None else said.options.get("for"),
            "bytes": self.bytes,
            "parameters": self.num_parameters,
            "macs": self.macs,
            "config": None if said is None else said.config.to_dict(),
            "input": None if said is None else said.input.to_dict(),
            "output": None if said is None else said.to_dict()["output"],
            "preprocess": None if said is None else said.preprocess.to_dict(),
            "labels": None if said is None else len(said.labels),
            "weights_digest": None if said is None else said.weights_digest,
            "provenance": None if said is None else [step.to_dict() for step in said.provenance],
            "producer": None if said is None else dict(said.producer),
            "inputs": None if graph is None else [each.to_dict() for each in graph.inputs],
            "outputs": None if graph is None else [each.to_dict() for each in graph.outputs],
            "operators": None if graph is None else dict(graph.operators),
            "facts": None if graph is None else dict(graph.facts),
            "metadata": None if graph is None else dict(graph.metadata),
            "accelerators": None if self.model is None else accelerators.to_json(self.model),
            "cuda": None if self.on_cuda is None else [each.to_dict() for each in self.on_cuda],
            "notes": list(self.notes),
        }


def inspect(path: Path, stated: Mapping[str, Any] | None = None) -> Inspection:
    """Look at a bundle, a model file of any origin, or a checkpoint, without running any of it.

    Args:
        path: the path of the artifact.
        stated: what the user says of a checkpoint, as `checkpoints.load` takes it; ignored for others.

    Raises:
        ArtifactError: nothing is there, a damaged model file, or a bundle that was changed.
        EngineError: an ONNX bundle whose weights lie outside of it.
        CheckpointError: a file that is neither a model file nor a checkpoint, or a damaged one.
        MissingEngineError: a checkpoint whose library is not installed.
    """
    if not path.exists():
        raise ArtifactError(f"there is nothing at {path}", fix="check the path")
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        artifact = read_artifact(path)
        if artifact.format == "onnx":
            refuse_outside_data(artifact.model_path)
        graph = READERS[artifact.format](artifact.model_path)
        model = artifact.model_path if artifact.format == "tflite" else None
        return Inspection(path, BUNDLE, artifact.format, artifact.model_bytes, artifact, graph, model=model)
    format = _format(path)
    return _checkpoint(path, stated or {}) if format is None else _model_file(path, format)


def snippet_of(found: Inspection) -> str:
    """Python that runs it in its plain engine; see `vit_deploy.formats.snippet`.

    Raises:
        ArtifactError: its preprocessing is not recorded, or it is a checkpoint.
    """
    if found.artifact is None:
        raise ArtifactError(
            f"{found.path} does not say how an image becomes its input",
            fix="give an artifact made by vit-deploy export",
        )
    return snippet(found.artifact)


def _format(path: Path) -> str | None:
    """The format by the content, or by name where the content cannot decide; None is a checkpoint."""
    if path.is_dir():
        return "savedmodel" if (path / savedmodel.FILE).is_file() else None
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    if start[4:8] == IDENTIFIER or path.suffix == ".tflite":
        return "tflite"
    if tensorrt_plan.flavour_of(start) is not None or path.suffix in PLAN_SUFFIXES:
        return "tensorrt"
    return "onnx" if path.suffix == ".onnx" else None


def _model_file(path: Path, format: str) -> Inspection:
    graph = READERS[format](path)
    ours = any(key.startswith(ESSENTIAL) for key in graph.metadata)
    artifact = from_essentials(path, graph.metadata) if ours else None
    beside, notes = _beside(path) if format == "onnx" else ([], [])
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path, *beside]
    if artifact is None and format == "tensorrt":
        notes = [*notes, "a plan has no room for config, preprocessing and labels: they are in its bundle's manifest"]
    elif artifact is None:
        notes = [*notes, "not made by vit-deploy: config, preprocessing and labels are not recorded in it"]
    size = sum(file.stat().st_size for file in files)
    model = path if format == "tflite" else None
    return Inspection(path, MODEL, format, size, artifact, graph, tuple(notes), model)


def _beside(path: Path) -> tuple[list[Path], list[str]]:
    """The files that hold weights of an ONNX file, and what is wrong with them."""
    found, notes = [], []
    for name in sorted(external_locations(path)):
        file = path.parent / name
        if not file.resolve().is_relative_to(path.parent.resolve()):
            notes.append(f"its weights are in {name}, outside its folder: engines refuse that")
        elif not file.is_file():
            notes.append(f"its weights are in {name}, which is missing: copy it too")
        else:
            found.append(file)
    return found, notes


def _checkpoint(path: Path, stated: Mapping[str, Any]) -> Inspection:
    from vit_deploy import checkpoints

    checkpoint = checkpoints.load(path, config=stated)
    config = checkpoint.config
    spec = InputSpec(shape=(None, *config.image_size, config.channels))
    format = path.suffix.removeprefix(".")
    artifact = describe(checkpoint, path.parent, format=format, precision="fp32", input=spec, model=path.name)
    return Inspection(path, CHECKPOINT, format, path.stat().st_size, artifact, None)
