"""The steps around every compiler of an accelerator: checks, staging, a copy of the source, and the record."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.compiled import RECORD, Compiled
from vit_deploy.core.engine_paths import refuse_odd_folder
from vit_deploy.core.manifest import MANIFEST, sha256, write_manifest
from vit_deploy.core.staging import check_targets, staged_folder
from vit_deploy.errors import ConfigError, UsageError, VitDeployError, did_you_mean
from vit_deploy.exporters.npu import DeviceCompiler, compiler_of

Progress = Callable[[str], object]


@dataclass(frozen=True)
class CompiledArtifact:
    """An artifact with a compiled file beside the file that it was made of.

    Args:
        artifact: the artifact.
        compiled: what its compiler made.
        source: the artifact that was compiled.
    """

    artifact: Artifact
    compiled: Compiled
    source: Artifact

    @property
    def path(self) -> Path:
        """The compiled file."""
        return self.artifact.directory / self.compiled.file

    @property
    def bytes(self) -> int:
        """The size of the compiled file."""
        return self.artifact.files[self.compiled.file][1]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.artifact.directory),
            "format": self.artifact.format,
            "precision": self.artifact.precision,
            "source": str(self.source.path),
            "bytes": self.bytes,
            **self.compiled.to_dict(),
        }


def compile_each(
    source: Artifact,
    targets: Sequence[str],
    directory: Path,
    settings: Mapping[str, str],
    *,
    force: bool = False,
    progress: Progress = lambda doing: None,
) -> list[CompiledArtifact]:
    """Write `directory/<format>-<precision>-<target>/` for each target; all that can be refused is refused before.

    Args:
        source: the artifact that is compiled; its proof is that of the file in it, which is copied.
        targets: names of accelerators.
        directory: the folder in which the artifacts are written.
        settings: what the compilers are told.
        force: replace artifacts that are there.
        progress: called with what is being done.

    Raises:
        UsageError: an unknown accelerator or setting.
        ConfigError: an artifact that the compiler cannot take.
        MissingEngineError: a compiler that is not installed.
        EngineError: the compiler refuses the file, or lets nothing run on the accelerator.
        OutputError: targets exist, or the disk is full.
    """
    refuse_odd_folder(directory)
    compilers = {target: compiler_of(target) for target in targets}
    for target, compiler in compilers.items():
        _check(source, target, compiler, settings)
    folders = {target: directory / f"{source.name}-{target}" for target in targets}
    check_targets(folders.values(), force=force)
    made: list[CompiledArtifact] = []
    for target, compiler in compilers.items():
        progress(f"compiling {source.name} for {target}")
        try:
            made.append(_one(source, target, compiler, settings, folders[target], force))
        except VitDeployError as error:
            if made:
                error.message += f"; already published: {', '.join(str(one.artifact.directory) for one in made)}"
            raise
    return made


def _check(source: Artifact, target: str, compiler: DeviceCompiler, settings: Mapping[str, str]) -> None:
    if RECORD in source.options:
        raise ConfigError(
            f"{source.path} was compiled already, for {source.options[RECORD]['target']}",
            fix="give the artifact that it was made of",
        )
    if source.is_bare:
        raise ConfigError(f"{source.path} is a model file by itself", fix="give an artifact that export has written")
    if source.format not in compiler.formats:
        raise ConfigError(
            f"{source.path} holds {source.format}; the compiler for {target} takes {' or '.join(compiler.formats)}",
            fix=f"export it with --format {compiler.formats[0]}",
        )
    for name in settings:
        if name not in compiler.settings:
            known = did_you_mean(name, compiler.settings) if compiler.settings else "leave it out: it takes none"
            raise UsageError(f"the compiler for {target} has no setting {name!r}", fix=known)
    compiler.check(source, target)


def _one(
    source: Artifact, target: str, compiler: DeviceCompiler, settings: Mapping[str, str], folder: Path, force: bool
) -> CompiledArtifact:
    with staged_folder(folder, force=force) as stage:
        for name in source.files:
            copied = stage.folder / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.directory / name, copied)
        compiled = compiler.compile(source, target, settings, stage.folder)
        artifact = write_manifest(
            dataclasses.replace(
                source,
                directory=stage.folder,
                files={},
                options={**source.options, RECORD: compiled.to_dict()},
                producer={**source.producer, **versions(*compiler.libraries)},
                parent=sha256(source.directory / MANIFEST),
            )
        )
    return CompiledArtifact(dataclasses.replace(artifact, directory=folder), compiled, source)
