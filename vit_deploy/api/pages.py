"""Pages that run models in a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vit_deploy.api.given import Artifacts, PathLike, Tell, artifact_paths, folder_path, path, silent
from vit_deploy.api.results import Outcome
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.quantities import megabytes
from vit_deploy.core.staging import check_file_target, check_targets, staged_file, staged_folder
from vit_deploy.errors import ConfigError, EngineError, Failed, MissingEngineError, OutputError, UsageError
from vit_deploy.web.models import check_artifact, model_of, names_of
from vit_deploy.web.notices import lacking, notices_of
from vit_deploy.web.page import FOLDER, INDEX, Engine, all_contents, engine_for, folder_files, one_file, title_of

SUFFIXES = (".html", ".htm")
EMBED_MB = 200
MOST_NAMED = 5


@dataclass(frozen=True)
class Demo:
    """A page that runs models.

    Args:
        path: the page, or the folder that holds it.
        artifacts: the models that it runs.
        bytes: how large all of it is.
        needs_server: whether it is a folder, which browsers read from a server alone.
        without_notices: the engines whose notices of others' code it only refers to, each with the Python package that
            would bring them.
    """

    path: Path
    artifacts: tuple[Artifact, ...]
    bytes: int
    needs_server: bool
    without_notices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoOutcome(Outcome[Demo]):
    """What `demo` has done; one result, and in `failed` the artifacts that the page cannot run."""

    command: ClassVar[str] = "demo"


def demo(
    artifacts: Artifacts,
    output: PathLike,
    *,
    title: str | None = None,
    runtime_files: PathLike | None = None,
    embed_mb: int = EMBED_MB,
    force: bool = False,
    progress: Tell = silent,
) -> DemoOutcome:
    """Make a page that runs models in a browser, proves each at its start, and shows the classes of pictures.

    The page asks no network for anything, and no picture leaves it.

    Args:
        artifacts: ONNX and TFLite artifacts, or folders of them.
        output: a name that ends in .html for one file that holds everything; any other is a folder, to be served.
        title: heading; None for the model's name.
        runtime_files: `node_modules` with onnxruntime-web or LiteRT.js, or the folder around it; None takes the one
            that the environment variable VIT_DEPLOY_WEB names.
        embed_mb: how many MB one file may hold.
        force: whether a page that is there is replaced.
        progress: called with what is being done.

    Raises:
        UsageError: no artifact in what is given.
        ArtifactError: no artifact, or one that was changed.
        ConfigError: more than one file may hold.
        ConfigError, MissingEngineError, EngineError: a page can run none of them, for its format, its outputs, or want
            of its engine's package; the error of the first. Where it can run some, the others are in `failed`.
        OutputError: the page is there, or cannot be written; or a folder is there that holds other things.
    """
    target, is_file = folder_path(output, "output"), Path(output).suffix.lower() in SUFFIXES
    if is_file:
        check_file_target(target, force=force)
    else:
        _check_folder(target, force=force)
    progress("reading the artifacts")
    given = [read_artifact(path) for path in artifact_paths(artifacts)]
    if not given:
        raise UsageError("no artifact is given; expected folders that export has written")
    found, engines, failed = _fitting(given, path(runtime_files))
    heading = title or title_of(found)
    models = [model_of(artifact, name) for artifact, name in zip(found, names_of(found), strict=True)]
    progress(f"writing {target}")
    if is_file:
        held = sum(len(content.data) for content in all_contents(models, engines))
        if held > embed_mb * 1_000_000:
            raise ConfigError(
                f"the page would hold {megabytes(held)}, and one file holds up to {embed_mb} MB",
                fix="name a folder as --output, which is to be served, or raise --embed-mb",
            )
        size = _write_file(target, one_file(models, engines, heading).encode(), force=force)
    else:
        size = _write_folder(target, folder_files(models, engines, heading), force=force)
    packages = [package for engine in engines for package in engine.packages]
    made = Demo(target, tuple(found), size, not is_file, lacking(packages))
    record = {
        "path": str(target),
        "bytes": size,
        "artifacts": [str(artifact.path) for artifact in found],
        "needs_server": made.needs_server,
        "packages": [package.to_dict() for package in packages],
        "notices": [notices.title for notices in notices_of(packages)],
    }
    return DemoOutcome((made,), (record,), ok=not failed, failed=failed)


def _fitting(
    artifacts: Sequence[Artifact], runtime_files: Path | None
) -> tuple[list[Artifact], list[Engine], tuple[Failed, ...]]:
    """The artifacts that a page can run, their engines, and the others with why not; where none can, the first's error.

    Raises:
        ConfigError, EngineError, MissingEngineError: not one can be run.
    """
    found: list[Artifact] = []
    engines: dict[str, Engine] = {}
    failed: list[Failed] = []
    for artifact in artifacts:
        try:
            check_artifact(artifact)
            if artifact.format not in engines:
                engines[artifact.format] = engine_for(artifact.format, runtime_files)
        except (ConfigError, EngineError, MissingEngineError) as error:
            failed.append(Failed(str(artifact.path), artifact.format, artifact.precision, error))
        else:
            found.append(artifact)
    if not found:
        raise failed[0].error
    return found, list(engines.values()), tuple(failed)


def _check_folder(target: Path, *, force: bool) -> None:
    check_targets([target], force=force)
    if not target.is_dir() or target.is_symlink():
        return
    if Path.cwd().is_relative_to(target.resolve()):
        raise OutputError(f"{target} is the folder that this runs in, or around it", fix="choose another output")
    held = sorted(entry.name for entry in target.iterdir())
    others = [name for name in held if name not in FOLDER]
    if others or (held and INDEX not in held):
        raise OutputError(
            f"{target} holds other things than a page: {', '.join((others or held)[:MOST_NAMED])}",
            fix="choose another output: --force replaces a page alone",
        )


def _write_file(target: Path, content: bytes, *, force: bool) -> int:
    with staged_file(target, force=force) as staged:
        staged.write_bytes(content)
    return len(content)


def _write_folder(target: Path, files: Mapping[str, bytes], *, force: bool) -> int:
    with staged_folder(target, force=force) as stage:
        for name, content in files.items():
            place = stage.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return sum(map(len, files.values()))
