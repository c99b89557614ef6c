"""Artifacts compiled for accelerators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vit_deploy.api.given import ArtifactLike, PathLike, Tell, artifact_path, as_tuple, folder_path, silent
from vit_deploy.api.results import Outcome
from vit_deploy.core.manifest import read_artifact
from vit_deploy.exporters.npu.compiling import CompiledArtifact, compile_each


@dataclass(frozen=True)
class CompileOutcome(Outcome[CompiledArtifact]):
    """What `compile` has made, one result for each target."""

    command: ClassVar[str] = "compile"


def compile(
    artifact: ArtifactLike,
    directory: PathLike,
    *,
    targets: str | Sequence[str],
    settings: Mapping[str, str] | None = None,
    force: bool = False,
    progress: Tell = silent,
) -> CompileOutcome:
    """Compile an artifact for accelerators, each into `directory/<format>-<precision>-<target>/`.

    The compiled file lies beside a copy of the file that it was made of, which stays what is proven and run here; what
    the compiler tells of operators, memory and speed is in the manifest. Speeds are the compiler's estimates.

    Args:
        artifact: its folder, or one that `export` or `quantize` returned.
        directory: where the artifacts go.
        targets: one or several accelerators, as "ethos-u55-256".
        settings: what the compiler is told besides, by name, as {"memory-mode": "Sram_Only"}.
        force: replace artifacts that are there.
        progress: called with what is being done.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        UsageError: an unknown accelerator or setting.
        ConfigError: an artifact that the compiler cannot take.
        MissingEngineError: a compiler that is not installed.
        EngineError: the compiler refuses the file, or lets nothing run on the accelerator.
        OutputError: an artifact is there already, or cannot be written.
    """
    folder = folder_path(directory, "directory")
    source = read_artifact(artifact_path(artifact))
    made = compile_each(source, as_tuple(targets), folder, settings or {}, force=force, progress=progress)
    return CompileOutcome(tuple(made), tuple(one.to_dict() for one in made))
