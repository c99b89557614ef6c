"""The contents of a checkpoint, a model file or an artifact, wherever it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vit_deploy.core import cost
from vit_deploy.core.artifact import ESSENTIAL, Artifact, describe
from vit_deploy.core.compiled import RECORD, Compiled
from vit_deploy.core.conversion import Conversion
from vit_deploy.core.format import Format
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import MANIFEST, from_essentials, read_artifact
from vit_deploy.core.origin import REQUIRE_LICENCE, check_licence, licence_in, origin_in
from vit_deploy.errors import ArtifactError
from vit_deploy.formats.accelerators import Verdict
from vit_deploy.formats.cuda_operators import OnCuda
from vit_deploy.formats.detect import format_of
from vit_deploy.formats.graph import Graph, read_graph
from vit_deploy.formats.snippet import snippet

BUNDLE, CHECKPOINT, MODEL = "bundle", "checkpoint", "model file"


@dataclass(frozen=True)
class Inspection:
    """What was found at a path.

    Args:
        path: the path as it was given.
        kind: "artifact", "checkpoint" or "model file".
        format: "onnx", "tflite", "savedmodel", "tensorrt"; of a checkpoint its suffix, "keras" or "pth.tar".
        bytes: the size of the model files.
        artifact: what the manifest, the checkpoint, or the model file itself says; None for a foreign file.
        graph: what the model file holds; None for a checkpoint.
        notes: what is odd, in words.
        model: the file whose fallbacks on accelerators can be told, which are known of TFLite; None of other formats.
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
        reader = FORMATS[self.format].operators_on_cuda if self.graph is not None else None
        return None if reader is None or self.graph is None else reader.load()(self.graph.operators)

    @cached_property
    def accelerators(self) -> dict[str, Verdict] | None:
        """What accelerators leave to the CPU; None of formats of which that is not known."""
        reader = None if self.model is None else FORMATS[self.format].accelerators
        return None if reader is None else reader.load()(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is not recorded is null."""
        said, graph, said_by = self.artifact, self.graph, self.accelerators
        conversion = None if said is None else Conversion.of(said)
        compiled = None if said is None else Compiled.of(said)
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
            "licence": None if said is None else licence_in(said.provenance) or None,
            "origin": None if said is None or (origin := origin_in(said.provenance)) is None else origin.to_dict(),
            **({"compiled": dict(said.options[RECORD])} if compiled is not None and said is not None else {}),
            **({"converter": conversion.to_dict()} if conversion is not None else {}),
            "provenance": None if said is None else [step.to_dict() for step in said.provenance],
            "producer": None if said is None else dict(said.producer),
            "inputs": None if graph is None else [tensor.to_dict() for tensor in graph.inputs],
            "outputs": None if graph is None else [output.to_dict() for output in graph.outputs],
            "operators": None if graph is None else dict(graph.operators),
            "facts": None if graph is None else dict(graph.facts),
            "metadata": None if graph is None else dict(graph.metadata),
            "accelerators": None if said_by is None else {key: found.records for key, found in said_by.items()},
            **({"accelerators_by": {key: found.source for key, found in said_by.items()}} if said_by else {}),
            "cuda": None if self.on_cuda is None else [operator.to_dict() for operator in self.on_cuda],
            "notes": list(self.notes),
        }


def inspect(path: Path, stated: Mapping[str, Any] | None = None) -> Inspection:
    """Look at an artifact, a model file of any origin, or a checkpoint, without running any of it.

    Args:
        path: the path of the artifact.
        stated: what the user says of a checkpoint, as `checkpoints.load` takes it; ignored for others.

    Raises:
        ArtifactError: nothing is there, a damaged model file, or an artifact that was changed.
        LicenceError: a model whose licence is none of those required.
        EngineError: an ONNX artifact whose weights lie outside of it.
        CheckpointError: a file that is neither a model file nor a checkpoint, or a damaged one.
        MissingEngineError: a checkpoint whose library is not installed.
    """
    if not path.exists():
        from vit_deploy.checkpoints.hub import parse

        if parse(path.as_posix()) is not None:
            return _checkpoint(path, stated or {})
        raise ArtifactError(f"there is nothing at {path}", fix="check the path")
    required = (stated or {}).get(REQUIRE_LICENCE, ())
    if path.name == MANIFEST or (path / MANIFEST).is_file():
        artifact = read_artifact(path)
        check_licence(licence_in(artifact.provenance), required, str(path))
        record = FORMATS[artifact.format]
        if record.refuse is not None:
            record.refuse.load()(artifact.model_path)
        graph = read_graph(artifact.model_path, record)
        model = None if record.accelerators is None else artifact.model_path
        return Inspection(path, BUNDLE, artifact.format, artifact.model_bytes, artifact, graph, model=model)
    format = format_of(path)
    if format is None:
        return _checkpoint(path, stated or {})
    found = _model_file(path, format)
    check_licence("" if found.artifact is None else licence_in(found.artifact.provenance), required, str(path))
    return found


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


def _model_file(path: Path, format: Format) -> Inspection:
    graph = read_graph(path, format)
    ours = any(key.startswith(ESSENTIAL) for key in graph.metadata)
    artifact = from_essentials(path, graph.metadata) if ours else None
    beside, notes = ([], []) if format.files_beside is None else format.files_beside.load()(path)
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path, *beside]
    if artifact is None:
        foreign = "not made by vit-deploy: config, preprocessing and labels are not recorded in it"
        notes = [*notes, format.no_essentials or foreign]
    size = sum(file.stat().st_size for file in files)
    model = None if format.accelerators is None else path
    return Inspection(path, MODEL, format.name, size, artifact, graph, tuple(notes), model)


def _checkpoint(path: Path, stated: Mapping[str, Any]) -> Inspection:
    from vit_deploy import checkpoints

    located = checkpoints.locate(path, stated.get(checkpoints.REQUIRE_LICENCE, ()))
    checkpoint = checkpoints.load(located, config=stated)
    config = checkpoint.config
    spec = InputSpec(shape=(None, *config.image_size, config.channels))
    format = checkpoints.kind_of_file(located.path)
    artifact = describe(checkpoint, path.parent, format=format, precision="fp32", input=spec, model=path.name)
    return Inspection(path, CHECKPOINT, format, located.bytes, artifact, None)
