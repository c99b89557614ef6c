"""Exports of which some are compiled for one kind of hardware: each of the other format's artifact in its precision."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, sha256
from vit_deploy.core.staging import check_targets, staged_folder
from vit_deploy.errors import Failed, VitDeployError
from vit_deploy.exporters import COMPILERS, Compiler, PlanOptions
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.publish import OF_ONE_FILE, Exported, Progress, publish, targets, telling_what_is_there
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.exporters.quantization.made import Made
from vit_deploy.exporters.quantization.requested import check_before
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.tolerances import Limits

NO_PLANS = PlanOptions()


def export(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    options: QuantizeOptions,
    *,
    plans: PlanOptions = NO_PLANS,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> Made:
    """Make, prove and publish each job's artifact, in any format and precision; see `pipeline.export`.

    What a plan is compiled of is taken from this export where it was asked for as well, and else made and dropped.

    Args:
        checkpoint: the model.
        directory: the folder in which the artifacts are written.
        jobs: the jobs from `plan`.
        options: the options of the quantized ones.
        plans: the options of TensorRT plans, and whether they go without a proof.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        progress: called with what is being done.

    Raises:
        MissingEngineError, EngineError: also where there is no hardware to prove a plan on, before any work.
        OutputError, ExportError, DataError, ConfigError: as `pipeline.export`.
    """
    compiled = [job for job in jobs if FORMATS[job.format].made_of]
    others = [job for job in jobs if not FORMATS[job.format].made_of]
    if compiled:
        check_targets(targets(directory, jobs, keep_failed=keep_failed, unproven=plans.unproven), force=force)
        check_compiled(compiled, plans)
        check_before(checkpoint, directory, [_source_of(job) for job in compiled], options)
    made = Made([])
    if others:
        made = pipeline.export(
            checkpoint, directory, others, options, force=force, keep_failed=keep_failed, progress=progress
        )
    if compiled:
        made = made.also(_compiled(checkpoint, directory, compiled, made, options, plans, force, keep_failed, progress))
    order = {job.name: index for index, job in enumerate(jobs)}
    made.results.sort(key=lambda result: order.get(result.artifact.name, len(order)))
    return made.unless_all_failed()


def check_compiled(jobs: Sequence[Job], plans: PlanOptions) -> None:
    """Refuse what could not be compiled or proven on this machine, before any work.

    Raises:
        MissingEngineError, EngineError: as `Compiler.check`.
    """
    for format in dict.fromkeys(job.format for job in jobs if FORMATS[job.format].made_of):
        compiler: Compiler = COMPILERS.load(format)()
        compiler.check(plans)


def _source_of(job: Job) -> Job:
    return dataclasses.replace(job, format=FORMATS[job.format].made_of)


@contextlib.contextmanager
def _sources(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    there: Sequence[Exported],
    options: QuantizeOptions,
    progress: Progress,
) -> Iterator[Made]:
    """The artifacts that plans are made of, of which some are there; the others are gone when the block ends."""
    target = jobs[0].options.target
    named = {
        result.artifact.name: result for result in there if result.artifact.options.get("for", Target.CPU) == target
    }
    found = [named[job.name] for job in map(_source_of, jobs) if job.name in named]
    missing = [job for job in map(_source_of, jobs) if job.name not in named]
    if not missing:
        yield Made(found)
        return
    with staged_folder(directory / jobs[0].name, force=True) as folder:
        folder.divert(None)
        below = folder.folder / "sources"  # the folder itself is locked as long as it is worked in
        quietly = dataclasses.replace(options, measure_speed=False)
        made = pipeline.export(checkpoint, below, missing, quietly, progress=progress)
        yield Made(found).also(made)


def _compiled(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    there: Made,
    options: QuantizeOptions,
    plans: PlanOptions,
    force: bool,
    keep_failed: bool,
    progress: Progress,
) -> Made:
    """What became of the jobs whose files are compiled; one that fails does not stop the others."""
    made = Made([])
    try:
        with (
            telling_what_is_there(there.results, but=OF_ONE_FILE),
            _sources(checkpoint, directory, jobs, there.results, options, progress) as sources,
        ):
            made = _but_the_bundles(sources, there)
            for job in jobs:
                with telling_what_is_there(made.results, but=OF_ONE_FILE):
                    made = made.also(_one_or_why_not(job, sources, directory, plans, force, keep_failed, progress))
    except OF_ONE_FILE as error:  # not one file to compile could be made
        made = made.also(Made([], failed=[_failed(job, error) for job in jobs]))
    return made


def _failed(job: Job, error: VitDeployError) -> Failed:
    return Failed(job.name, job.format, job.precision, error)


def _but_the_bundles(sources: Made, made: Made) -> Made:
    """What is to be told of sources: of their results those alone that failed, unless they are told already."""
    failed = [result for result in sources.results if not result.parity.ok and result not in made.results]
    gone = [dataclasses.replace(result, published=False) for result in failed]
    return Made(gone, skipped=sources.skipped, notes=sources.notes)


def _one_or_why_not(
    job: Job,
    sources: Made,
    directory: Path,
    plans: PlanOptions,
    force: bool,
    keep_failed: bool,
    progress: Progress,
) -> Made:
    name = _source_of(job).name
    source = next((result for result in sources.results if result.artifact.name == name), None)
    error = next((failure.error for failure in sources.failed if failure.name == name), None)
    if error is not None:
        return Made([], failed=[_failed(job, error)])
    if source is None or not source.parity.ok:
        return Made(
            [], skipped=[f"{job.name}: the {FORMATS[job.format].made_of} file that it is made of failed its proof"]
        )
    try:
        return _one(job, source, sources, directory, plans, force, keep_failed, progress)
    except OF_ONE_FILE as why:
        return Made([], failed=[_failed(job, why)])


def _one(
    job: Job,
    source: Exported,
    sources: Made,
    directory: Path,
    plans: PlanOptions,
    force: bool,
    keep_failed: bool,
    progress: Progress,
) -> Made:
    bundle = source.artifact
    compiler: Compiler = COMPILERS.load(job.format)()

    def write(folder: Path) -> Artifact:
        target = dataclasses.replace(
            bundle,
            directory=folder,
            format=job.format,
            files={},
            model="",
            parent=sha256(bundle.directory / MANIFEST),
        )
        return compiler.write(bundle, target, plans)

    result = publish(
        directory / job.name,
        write,
        read_golden(bundle),
        force=force,
        keep_failed=keep_failed,
        progress=progress,
        limits=Limits(allow_tf32=plans.allow_tf32),
        prove=not plans.unproven,
    )
    note = f"{job.name}: {compiler.account(result.artifact)}"
    table = sources.sensitivities.get(bundle.name)
    return Made([result], sensitivities={} if table is None else {job.name: table}, notes=[note])
