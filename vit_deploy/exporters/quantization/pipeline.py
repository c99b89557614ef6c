"""The steps around every quantizer: calibration, search for layers to keep, staging, proof, comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact, versions
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.engine_paths import refuse_odd_folder
from vit_deploy.core.format import FP32
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, sha256
from vit_deploy.core.provenance import Step
from vit_deploy.core.registry import Registry
from vit_deploy.core.staging import check_targets, staged_folder
from vit_deploy.errors import ConfigError, Failed, VitDeployError
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.publish import (
    OF_ONE_FILE,
    Exported,
    Progress,
    export_each,
    failed_name,
    publish,
    targets,
    telling_what_is_there,
)
from vit_deploy.exporters.quantization import QUANTIZERS, QuantizeOptions, Quantizer
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.coarse_ranges import notes_on_coarse_ranges
from vit_deploy.exporters.quantization.full_range import notes_on_saturation
from vit_deploy.exporters.quantization.half_protection import notes_on_protection
from vit_deploy.exporters.quantization.learned_ranges import notes_on_ranges
from vit_deploy.exporters.quantization.made import Made
from vit_deploy.exporters.quantization.outputs import answers
from vit_deploy.exporters.quantization.recipes import Recipe
from vit_deploy.exporters.quantization.requested import check_before, requested_recipes
from vit_deploy.exporters.quantization.sensitivity import (
    Budget,
    Work,
    keep_fewest,
    measure_layers,
    write_sensitivities,
)
from vit_deploy.exporters.quantization.tradeoffs import compare_with_fp32
from vit_deploy.verification.golden import Golden, read_golden

OF_ONE_PRECISION = (*OF_ONE_FILE, ConfigError)
"""Errors that are about one precision and say nothing of the next; the last of them is a budget that it cannot meet."""


def check(formats: Sequence[str], precisions: Sequence[str]) -> None:
    """Whether what quantizes these formats is installed, before any work.

    Raises:
        MissingEngineError: it is not.
    """
    registry: Registry = QUANTIZERS
    for format in (FORMATS[name].made_of or name for name in formats):
        if format in registry and set(precisions) - {FP32}:
            registry.check(format)


def export(
    checkpoint: Checkpoint,
    directory: Path,
    jobs: Sequence[Job],
    options: QuantizeOptions,
    *,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> Made:
    """Make, prove and publish each job's artifact as `directory/<format>-<precision>/`, in any precision.

    The fp32 artifact of a format is what its others are made of; where it was not asked for it is made and dropped.

    Args:
        checkpoint: the model.
        directory: the folder in which the artifacts are written.
        jobs: the jobs from `plan`.
        options: the options of the quantized ones.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        progress: called with what is being done.

    A file that cannot be made does not stop the others.

    Raises:
        OutputError, DataError, ConfigError: as `exporters.publish.export` and `quantize`.
        ExportError, EngineError: not one file could be made.
    """
    check([job.format for job in jobs], [job.precision for job in jobs])
    check_targets(targets(directory, jobs, keep_failed=keep_failed), force=force)
    check_before(checkpoint, directory, jobs, options)
    plain = [job for job in jobs if job.precision == FP32]
    made = Made([])
    if plain:
        results, failed = export_each(
            checkpoint, directory, plain, force=force, keep_failed=keep_failed, progress=progress
        )
        made = Made(results, failed=failed)
    for format in dict.fromkeys(job.format for job in jobs):
        wanted = [job for job in jobs if job.format == format and job.precision != FP32]
        if not wanted:
            continue
        there = next((result for result in made.results if result.artifact.format == format), None)
        error = next((failure.error for failure in made.failed if failure.format == format), None)
        with _fp32(checkpoint, directory, wanted[0], there or error, progress) as source:
            if not isinstance(source, Exported):
                made = made.also(Made([], failed=_failed(wanted, source)))
                continue
            if not source.parity.ok:
                # What is not there has no other name than the one that it would have had.
                lost = dataclasses.replace(source.artifact, directory=directory / source.artifact.name)
                gone = dataclasses.replace(source, artifact=lost, published=False)
                made = made.also(Made([] if source is there else [gone], skipped=_orphans(wanted, source)))
                continue
            made = made.also(
                attempt(
                    source.artifact,
                    directory,
                    [job.precision for job in wanted],
                    options,
                    force=force,
                    keep_failed=keep_failed,
                    progress=progress,
                )
            )
    order = {job.name: index for index, job in enumerate(jobs)}
    made.results.sort(key=lambda result: order.get(result.artifact.name, len(order)))
    return made.unless_all_failed()


@contextlib.contextmanager
def _fp32(
    checkpoint: Checkpoint, directory: Path, job: Job, there: Exported | VitDeployError | None, progress: Progress
) -> Iterator[Exported | VitDeployError]:
    """A format's fp32 file, or why there is none."""
    if there is not None:
        yield there
        return
    plain = dataclasses.replace(job, precision=FP32)
    with staged_folder(directory / plain.name, force=True) as stage:
        stage.divert(None)
        below = stage.folder / FP32  # the folder itself is locked as long as it is worked in
        made, failed = export_each(checkpoint, below, [plain], keep_failed=True, progress=progress)
        for failure in failed:
            failure.error.message = failure.error.message.replace(str(below), str(directory))
        yield made[0] if made else failed[0].error


def _failed(wanted: Sequence[Job], error: VitDeployError) -> list[Failed]:
    """What cannot be made without an fp32 file."""
    message = f"the fp32 file that it is made of could not be made: {error.message}"
    return [Failed(job.name, job.format, job.precision, type(error)(message, fix=error.fix)) for job in wanted]


def _orphans(wanted: Sequence[Job], source: Exported) -> list[str]:
    reason = f"the fp32 file that it is made of failed its proof: {', '.join(source.parity.failures)}"
    return [f"{job.name}: {reason}" for job in wanted]


def quantize(
    source: Artifact,
    directory: Path,
    precisions: Sequence[str],
    options: QuantizeOptions,
    *,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> Made:
    """Make, prove and publish `directory/<format>-<precision>/` from an fp32 artifact, and compare all with it.

    Args:
        source: the fp32 artifact.
        directory: the folder in which the artifacts are written.
        precisions: the precisions to make, of those that the format has.
        options: the options of all of them.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        progress: called with what is being done.

    A precision that cannot be made does not stop the others.

    Raises:
        ConfigError: the source is no fp32 artifact, its format has no such precision or the model no such layer, or the
            budget cannot be met by any.
        DataError: images that cannot be calibrated or measured with.
        OutputError: targets exist, or the disk is full.
        ExportError, EngineError: the quantizer failed with every precision.
        MissingEngineError: it is not installed.
    """
    made = attempt(source, directory, precisions, options, force=force, keep_failed=keep_failed, progress=progress)
    return made.unless_all_failed()


def attempt(
    source: Artifact,
    directory: Path,
    precisions: Sequence[str],
    options: QuantizeOptions,
    *,
    force: bool,
    keep_failed: bool,
    progress: Progress,
) -> Made:
    """`quantize` for callers with more to make: also where every precision failed, that is told and not raised."""
    if FORMATS[source.format].made_of:
        raise ConfigError(
            f"{source.directory} holds a {source.format} file, which is compiled and not to be changed any more",
            fix=f"quantize the {FORMATS[source.format].made_of} artifact, "
            f"or vit-deploy export --format {source.format} -p PRECISION",
        )
    if source.precision != FP32:
        raise ConfigError(
            f"{source.directory} is {source.precision} already; quantizing starts from fp32",
            fix=f"give {source.format}-fp32, and let vit-deploy export make it",
        )
    recipes = requested_recipes(source, precisions, options)
    QUANTIZERS.check(source.format)
    refuse_odd_folder(directory)
    names = [directory / f"{source.format}-{recipe.precision}" for recipe in recipes]
    check_targets([*names, *map(failed_name, names)] if keep_failed else names, force=force)
    mapping = ""
    if options.data is not None:  # it is read when all is made
        dataset = read_dataset(options.data)
        dataset.classes(source)
        mapping = dataset.describe_mapping(source)
    progress("reading the calibration images")
    # Without need for calibration they still are what speed and accuracy are compared on.
    images = read_calibration(options.calibrate, source, seed=options.seed)
    budget = Budget.of(source, options, images)
    quantizer: Quantizer = QUANTIZERS.load(source.format)()
    golden = read_golden(source)
    made = Made([], notes=[mapping] if mapping else [])
    for recipe, target in zip(recipes, names, strict=True):
        work = Work(quantizer, source, recipe, images, progress)
        try:
            with telling_what_is_there(made.results, but=OF_ONE_PRECISION):
                made = made.also(_one(work, target, budget, golden, options, force=force, keep_failed=keep_failed))
        except OF_ONE_PRECISION as error:
            made = made.also(Made([], failed=[Failed(target.name, source.format, recipe.precision, error)]))
    published = [result.artifact for result in made.results if result.published]
    with telling_what_is_there(made.results):
        return made.also(Made([], facts=compare_with_fp32(source, published, images, options, progress)))


def _one(
    work: Work,
    target: Path,
    budget: Budget | None,
    golden: Golden,
    options: QuantizeOptions,
    *,
    force: bool,
    keep_failed: bool,
) -> Made:
    notes = [*notes_on_ranges(work.source, work.recipe, work.calibration)]
    table = measure_layers(work) if options.sensitivity or budget is not None else None
    if budget is not None and table is not None:
        work = keep_fewest(work, table, budget)

    reached = {}

    def write(folder: Path) -> Artifact:
        if table is not None:
            write_sensitivities(table, folder)
        artifact = work.write(_described(work, folder))
        if budget is not None:  # measured on the very file, for the search only took it to be so
            work.progress(f"measuring what {target.name} reaches")
            figure = budget.figure(answers(artifact, budget.images), answers(work.source, budget.images))
            if not budget.met(figure):
                raise ConfigError(f"{target.name} {budget.in_words(figure)}", fix="ask for less, or another precision")
            notes.append(f"{target.name} {budget.in_words(figure)}; {_kept(work.recipe)}")
            reached[target.name] = budget.to_dict(figure)
        return artifact

    result = publish(target, write, golden, force=force, keep_failed=keep_failed, progress=work.progress)
    notes += [*notes_on_protection(result.artifact), *notes_on_coarse_ranges(result.artifact)]
    notes += notes_on_saturation(result, golden, work.progress)
    tables = {} if table is None else {result.artifact.name: table}
    return Made([result], sensitivities=tables, notes=notes, budgets=reached)


def _kept(recipe: Recipe) -> str:
    return f"{len(recipe.keep_float)} layers stay in float" if recipe.keep_float else "no layer stays in float"


def _described(work: Work, folder: Path) -> Artifact:
    source, recipe, calibration = work.source, work.recipe, work.calibration
    facts = {"precision": recipe.precision, "keep_float": list(recipe.keep_float)}
    return dataclasses.replace(
        source,
        directory=folder,
        precision=recipe.precision,
        provenance=(*source.provenance, Step("quantize", {name: value for name, value in facts.items() if value})),
        options={
            **source.options,
            "recipe": recipe.to_dict(),
            "calibration": None if calibration is None else calibration.to_dict(),
        },
        files={},
        producer={**source.producer, **versions(*work.quantizer.libraries)},
        parent=sha256(source.directory / MANIFEST),
        model="",
    )
