"""What is in a model and in this environment, and artifacts packed for another one."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.api.given import ArtifactLike, Artifacts, PathLike, Tell, artifact_path, artifact_paths, paths, silent
from vit_deploy.api.results import BundleOutcome, DoctorOutcome, EmulatorOutcome, InspectOutcome
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.staging import check_targets
from vit_deploy.errors import UsageError, did_you_mean
from vit_deploy.formats import inspect as inspection
from vit_deploy.remote.contents import EVERYTHING, Asked
from vit_deploy.remote.emulation import setup as emulation
from vit_deploy.remote.emulation.machine import cpu_models
from vit_deploy.remote.packing import pack
from vit_deploy.remote.work import COMMANDS
from vit_deploy.runtimes.diagnosis import diagnose

ARCHIVES = (".tar.gz", ".tgz")


def inspect(
    path: ArtifactLike,
    *,
    snippet: bool = False,
    reading: CheckpointOptions = CheckpointOptions(),
    progress: Tell = silent,
) -> InspectOutcome:
    """Look at config, size, operators, inputs and outputs, preprocessing and origin of a model; nothing is run.

    Args:
        path: an artifact, an ONNX or TFLite file, a SavedModel, a TensorRT plan, or a checkpoint.
        snippet: whether the record has Python that runs it in its plain engine.
        reading: what a checkpoint file does not say, or how it is to be read otherwise.
        progress: called with what is being done.

    Returns:
        One inspection.

    Raises:
        ArtifactError: nothing is there, a damaged model file, or an artifact that was changed.
        EngineError: an ONNX artifact whose weights lie outside of it.
        CheckpointError: a file that is neither a model file nor a checkpoint, or a damaged one.
        MissingEngineError: a checkpoint whose library is not installed.
    """
    given = artifact_path(path)
    progress(f"reading {given}")
    with telling(progress):
        found = inspection.inspect(given, stated_fields(reading))
    record = found.to_dict() | ({"snippet": inspection.snippet_of(found)} if snippet else {})
    read = found.kind == inspection.CHECKPOINT and found.artifact is not None
    return InspectOutcome(
        (found,), (record,), origins={given: found.artifact.provenance} if read and found.artifact else None
    )


def doctor(*, gpu: bool = False, progress: Tell = silent) -> DoctorOutcome:
    """Look for engines, what they can use, and conflicts with their fixes.

    Each provider of ONNX Runtime opens a model of some bytes in a process of its own.

    Args:
        gpu: whether TensorFlow is asked for its GPUs too, which takes seconds.
        progress: called with what is being done.

    Returns:
        One diagnosis; `ok` if there are no conflicts.
    """
    progress("trying the engines")
    found = diagnose(gpu=gpu)
    return DoctorOutcome((found,), (found.to_dict(),), ok=not found.conflicts)


def emulator(
    action: str = "show", *, mirror: str | None = None, progress: Tell = silent, note: Tell = silent
) -> EmulatorOutcome:
    """Set up, show or remove the emulator of Arm computers that `on="qemu://cortex-a76"` runs on.

    QEMU, Python for Arm and the engines' wheels are fetched once into the user's cache; nothing is installed, and no
    rights are needed.

    Args:
        action: "setup" (about 165 MB are fetched; what is there already is kept), "show" or "remove".
        mirror: address of an archive of Debian's packages; None for Debian's own.
        progress: called with what is being done.
        note: called with how much is going to be fetched.

    Returns:
        One emulator.

    Raises:
        UsageError: another action.
        MissingEngineError: there is none to be shown or removed.
        RemoteError: a machine that it cannot run on, or something that cannot be fetched.
        OutputError: the cache cannot be written.
    """
    if action == "setup":
        found = emulation.set_up(mirror=mirror or emulation.MIRROR, progress=progress, note=note)
    elif action == "show":
        found = emulation.installed()
    elif action == "remove":
        cpus = cpu_models(emulation.installed())
        found = emulation.remove()
    else:
        raise UsageError(f"action is {action!r}; expected setup, show or remove")
    record = {
        "folder": str(found.folder),
        "bytes": found.bytes,
        "versions": found.versions,
        "cpus": cpus if action == "remove" else cpu_models(found),
        "removed": action == "remove",
    }
    return EmulatorOutcome((found,), (record,))


def bundle(
    artifacts: Artifacts,
    output: PathLike,
    *,
    commands: Sequence[str] = (),
    force: bool = False,
    progress: Tell = silent,
) -> BundleOutcome:
    """Pack artifacts with golden data and a runner that needs only Python, NumPy and the engine.

    Args:
        artifacts: artifacts made by `export`; a folder of artifacts stands for those inside it.
        output: archive to write, whose name ends in .tar.gz.
        commands: what its runner is for, of verify, bench, predict and evaluate: modules that only others import stay
            at home; none for all.
        force: whether a file that is there is replaced.
        progress: called with what is being done.

    Returns:
        The path of the archive.

    Raises:
        UsageError: a file name with another ending, or a command that no runner has.
        ArtifactError: a folder that is no artifact, or one that was changed.
        EngineError: an artifact whose weights lie outside of it.
        ConfigError: nothing to pack.
        OutputError: the file is there, or cannot be written.
    """
    [target] = paths(output, "output")
    if not target.name.endswith(ARCHIVES):
        raise UsageError(f"--output is {target.name!r}; expected a name that ends in .tar.gz")
    if unknown := [name for name in commands if name not in COMMANDS]:
        raise UsageError(f"the runner has no command {unknown[0]!r}", fix=did_you_mean(unknown[0], COMMANDS))
    check_targets([target], force=force)
    found = artifact_paths(artifacts)
    progress(f"writing {target}")
    pack(found, target, force=force, asked=Asked(tuple(commands)) if commands else EVERYTHING)
    record = {"path": str(target), "bytes": target.stat().st_size, "artifacts": [str(path) for path in found]}
    return BundleOutcome((target,), (record,))
