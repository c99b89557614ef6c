"""Publication of an artifact: staging, golden data, manifest, proof, and only then its name."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact, describe, versions
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.conversion import Conversion
from vit_deploy.core.engine_paths import refuse_odd_folder
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import OutputSpec
from vit_deploy.core.manifest import write_manifest
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.resize import convention_of
from vit_deploy.core.staging import check_targets, staged_folder
from vit_deploy.errors import EngineError, ExportError, Failed, VitDeployError
from vit_deploy.exporters import EXPORTERS, Exporter, browsers, conversions
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.proving import proving_provider
from vit_deploy.verification import records
from vit_deploy.verification.golden import Golden, Sized
from vit_deploy.verification.parity import Parity
from vit_deploy.verification.recording import golden_pixels, record, record_sizes, sized_pixels, write_golden
from vit_deploy.verification.tolerances import NO_LIMITS, Limits
from vit_deploy.verification.verifying import Verification, verify

Progress = Callable[[str], object]

UNPROVEN = Parity(unproven=True).failed("vit-deploy verify proves it where there is a GPU that it is for")


@dataclass(frozen=True)
class Exported:
    """What became of one job.

    Args:
        artifact: the artifact; its directory is where it was published, or would have been.
        bytes: the size of the model files.
        seconds: making them took.
        verify_seconds: proving them took, without the reference, which all artifacts of an export share.
        parity: the parity with the reference.
        published: whether the folder is there.
        outputs: the parity of each output of a file that was made for outputs by name.
    """

    artifact: Artifact
    bytes: int
    seconds: float
    verify_seconds: float
    parity: Parity
    published: bool
    outputs: Mapping[str, Parity] = field(default_factory=dict)


OF_ONE_FILE = (EngineError, ExportError)
"""Errors that are about one file and say nothing of the next."""


def export(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    *,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> list[Exported]:
    """As `export_each`; where a converter failed, its error is raised when all others are made.

    Raises:
        OutputError: targets exist, or the disk is full; nothing is left half-written.
        ExportError, EngineError: a converter failed.
    """
    results, failed = export_each(checkpoint, directory, jobs, force=force, keep_failed=keep_failed, progress=progress)
    with telling_what_is_there(results):
        for failure in failed:
            raise failure.error
    return results


def export_each(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    *,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> tuple[list[Exported], list[Failed]]:
    """Make, prove and publish each fp32 job's artifact as `directory/<format>-fp32/`.

    Args:
        checkpoint: the model.
        directory: the folder in which the artifacts are written.
        jobs: from `plan`; those of other precisions are made by `quantization.pipeline.export`.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        progress: called with what is being done.

    Returns:
        One result for every file that was made, in order, of which those that failed their proof are not published
        under their name; and those whose converter failed.

    Raises:
        OutputError: targets exist, or the disk is full; nothing is left half-written.
    """
    check_targets(targets(directory, jobs, keep_failed=keep_failed), force=force)
    progress("computing the reference in float64")
    golden = record(checkpoint, progress, outputs_of_model(jobs[0].options.outputs, checkpoint.config))
    sized: dict[tuple[Checkpoint, ...], tuple[Sized, ...]] = {}
    results: list[Exported] = []
    failed: list[Failed] = []
    for job in jobs:
        try:
            with telling_what_is_there(results, but=OF_ONE_FILE):
                resized = job.options.resized
                if resized not in sized:
                    sized[resized] = record_sizes(resized, progress, job.options.outputs)
                known = dataclasses.replace(golden, sizes=sized[resized])
                results.append(_export_one(checkpoint, directory, job, known, force, keep_failed, progress))
        except OF_ONE_FILE as error:
            failed.append(Failed(job.name, job.format, job.precision, error))
    return results, failed


@contextlib.contextmanager
def telling_what_is_there(results: Sequence[Exported], *, but: tuple[type[VitDeployError], ...] = ()) -> Iterator[None]:
    """Add to an error inside which artifacts were published before it, unless it is one of these kinds."""
    try:
        yield
    except but:
        raise
    except VitDeployError as error:
        if done := [str(result.artifact.directory) for result in results if result.published]:
            error.message += f"; already published: {', '.join(done)}"
        raise


def targets(directory: Path, jobs: Sequence[Job], *, keep_failed: bool, unproven: bool = False) -> list[Path]:
    """Every name that `export` may publish under; with `unproven`, plans have no other.

    Raises:
        OutputError: names that no engine could read.
    """
    refuse_odd_folder(directory)
    names = [directory / job.name for job in jobs]
    if unproven:
        compiled = [name for name, job in zip(names, jobs, strict=True) if FORMATS[job.format].made_of]
        names = [name for name in names if name not in compiled]
        return [*names, *(map(failed_name, names) if keep_failed else ()), *map(unproven_name, compiled)]
    return [*names, *map(failed_name, names)] if keep_failed else names


def failed_name(target: Path) -> Path:
    """The folder of an artifact that failed its proof."""
    return target.with_name(f"{target.name}.failed")


def unproven_name(target: Path) -> Path:
    """The folder of an artifact that nobody has proven yet."""
    return target.with_name(f"{target.name}.unproven")


def _export_one(
    checkpoint: Checkpoint,
    directory: Path,
    job: Job,
    golden: Golden,
    force: bool,
    keep_failed: bool,
    progress: Progress,
) -> Exported:
    progress(f"loading the exporter of {job.name}")
    exporter: Exporter = EXPORTERS.load(job.format)()

    def write(folder: Path) -> Artifact:
        artifact = describe(
            checkpoint,
            folder,
            format=job.format,
            precision=job.precision,
            input=job.options.input_spec(checkpoint.config),
            options={
                **({"opset": job.options.opset} if FORMATS[job.format].has_opset else {}),
                **({} if job.options.target is Target.CPU else {"for": str(job.options.target)}),
                **({"like": str(convention_of(checkpoint, job.options.like))} if job.options.resized else {}),
                **(
                    {"ranges": {name: list(ends) for name, ends in checkpoint.ranges.items()}}
                    if checkpoint.ranges
                    else {}
                ),
            },
            producer=versions(*exporter.libraries),
            sizes=job.options.sizes(checkpoint.config),
            outputs={name: OutputSpec() for name in job.options.outputs},
        )
        artifact = dataclasses.replace(artifact, options={**artifact.options, **conversions.record_of(artifact)})
        exporter.write(checkpoint, artifact, job.options)
        return artifact

    outputs = outputs_of_model(job.options.outputs, checkpoint.config)
    if job.options.include_preprocessing:
        golden = golden.as_pixels(golden_pixels(checkpoint.config, outputs))
        of_sizes = (
            dataclasses.replace(sized, images=sized_pixels(resized.config, job.options.outputs, len(golden.sizes)))
            for sized, resized in zip(golden.sizes, job.options.resized, strict=True)
        )
        golden = dataclasses.replace(golden, sizes=tuple(of_sizes))
    return publish(directory / job.name, write, golden, force=force, keep_failed=keep_failed, progress=progress)


def publish(
    target: Path,
    write: Callable[[Path], Artifact],
    golden: Golden,
    *,
    force: bool,
    keep_failed: bool,
    progress: Progress,
    limits: Limits = NO_LIMITS,
    prove: bool = True,
) -> Exported:
    """Have an artifact written, add golden data and manifest, prove it, and only then give it its name.

    Args:
        target: the artifact's folder to be.
        write: writes the model files into a folder, and describes them.
        golden: images and reference outputs, as the model takes them.
        force: replace an artifact that is there.
        keep_failed: publish one that fails its proof as `<name>.failed`.
        progress: called with what is being done.
        limits: that its proof is held to.
        prove: whether it is; if not, it is published as `<name>.unproven`, and its parity says so.
    """
    target = target if prove else unproven_name(target)
    with staged_folder(target, force=force) as stage:
        progress(f"writing {target.name}")
        start = time.perf_counter()
        with _naming(stage.folder, target):
            artifact = write(stage.folder)
        seconds = time.perf_counter() - start
        if prove:
            progress(f"proving {target.name}")
        start = time.perf_counter()
        write_golden(golden, stage.folder)
        artifact = write_manifest(artifact)
        with _naming(stage.folder, target):
            browsers.refuse_unfit(artifact)
            proving = proving_provider(artifact)
            proof = verify(artifact, provider=proving, golden=golden, limits=limits) if prove else None
            parity = UNPROVEN if proof is None else with_sizes(proof)
        judged = {} if proof is None else proof.outputs
        verify_seconds = time.perf_counter() - start
        size = artifact.model_bytes
        if prove and not parity.ok:
            stage.divert(failed_name(target) if keep_failed else None)
            if target.exists():
                parity = parity.failed(f"{target} still holds the earlier artifact")
    published = Artifact(**{**vars(artifact), "directory": stage.published or target})
    return Exported(published, size, seconds, verify_seconds, parity, stage.published is not None, judged)


def with_sizes(proof: Verification) -> Parity:
    """The parity of a file at its own size, which has failed where it failed at another."""
    parity = proof.parity
    for one in proof.sizes:
        for failure in one.parity.failures:
            parity = parity.failed(f"at {one.size}: {failure}")
    return parity


@contextlib.contextmanager
def _naming(folder: Path, target: Path) -> Iterator[None]:
    """Let errors inside speak of the target in place of the hidden folder, which is gone when they are read."""
    try:
        yield
    except VitDeployError as error:
        error.message = error.message.replace(str(folder), str(target))
        raise


def to_json(result: Exported) -> dict[str, Any]:
    """One result of the `export` command; `path` is null where nothing was published."""
    conversion = Conversion.of(result.artifact)
    return {
        "path": str(result.artifact.directory) if result.published else None,
        "format": result.artifact.format,
        "precision": result.artifact.precision,
        "bytes": result.bytes,
        "seconds": round(result.seconds, 3),
        "verify_seconds": round(result.verify_seconds, 3),
        "parity": records.parity(result.parity),
        **records.of_outputs(result.outputs),
        **({"converter": conversion.to_dict()} if conversion is not None else {}),
    }
