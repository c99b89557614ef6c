"""Functions that make artifacts: export and quantize."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from vit_deploy.api.given import ArtifactLike, PathLike, Tell, artifact_path, as_tuple, folder_path, names, silent
from vit_deploy.api.models import Model, Size, open_source, sides
from vit_deploy.api.results import Outcome
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import SCALE_CONFIGS, in_words
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.image_sizes import DYNAMIC
from vit_deploy.core.options import CheckpointOptions, PlanOptions, QuantizeOptions
from vit_deploy.core.staging import check_targets
from vit_deploy.errors import ConfigError, ExportError
from vit_deploy.exporters import browsers, conversions, transformers_js
from vit_deploy.exporters.open_or_many import Sizes
from vit_deploy.exporters.plan import plan, probability_notes, usual_formats, with_outputs
from vit_deploy.exporters.publish import targets, telling_what_is_there
from vit_deploy.exporters.quantization import QUANTIZERS, compiled, pipeline
from vit_deploy.exporters.quantization.made import Made
from vit_deploy.exporters.quantization.option_checks import notes_on_idle
from vit_deploy.exporters.quantization.records import records_of
from vit_deploy.exporters.quantization.sources import Work, plain_bundles, quantize_each, work_of
from vit_deploy.exporters.tensorrt.option_checks import check_plan_options
from vit_deploy.exporters.tensorrt.serving import check_repository, places, serve
from vit_deploy.runtimes import open_session
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.targets import DEFAULT_SCALE


@dataclass(frozen=True)
class ArtifactsOutcome(Outcome[Artifact]):
    """What was published, a sequence of artifacts, and what became of the others.

    Args:
        made: one result an artifact, published or not: its proof, its size, and its speed and accuracy beside fp32.
        served: where the model of an artifact lies in a Triton repository, by the artifact's name.
        notes: what has to be known of the model, in words.
    """

    made: Made = field(default_factory=lambda: Made([]), repr=False)
    served: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def raise_unless_ok(self) -> None:
        """Raise what an artifact came to nothing with, or which failed their proof.

        Raises:
            ExportError: an artifact failed its proof and is not published under its name.
            VitDeployError: an artifact could not be made.
        """
        failed = [result for result in self.made.results if not result.parity.ok and not result.parity.unproven]
        if failed:
            reasons = "; ".join(f"{result.artifact.name}: {', '.join(result.parity.failures)}" for result in failed)
            raise ExportError(
                f"not published, for it failed its proof: {reasons}",
                fix="look at it with vit-deploy export --keep-failed",
            )
        with telling_what_is_there(self.made.results):
            for failure in self.failed:
                raise failure.error


@dataclass(frozen=True)
class ExportOutcome(ArtifactsOutcome):
    """What `export` has done."""

    command: ClassVar[str] = "export"


@dataclass(frozen=True)
class QuantizeOutcome(ArtifactsOutcome):
    """What `quantize` has done."""

    command: ClassVar[str] = "quantize"


def export(
    model: Model = DEFAULT_SCALE,
    directory: PathLike | None = None,
    *,
    formats: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] = ("fp32",),
    image_size: Size | str | Sequence[Size | str] | None = None,
    patch_size: Size | None = None,
    like: str | None = None,
    num_classes: int | None = None,
    seed: int | None = None,
    reading: CheckpointOptions = CheckpointOptions(),
    classes: Sequence[str] | None = None,
    templates: str | Sequence[str] = (),
    batch: int | str | None = None,
    opset: int | None = None,
    layout: str = "nhwc",
    include_preprocessing: bool = False,
    target: str = "cpu",
    outputs: str | Sequence[str] = (),
    calibrate: PathLike | None = None,
    quantizing: QuantizeOptions = QuantizeOptions(),
    plans: PlanOptions = PlanOptions(),
    triton: PathLike | None = None,
    triton_provider: str | None = None,
    force: bool = False,
    keep_failed: bool = False,
    check: bool = True,
    progress: Tell = silent,
) -> ExportOutcome:
    """Write a model as `directory/<format>-<precision>/`, each proven before it is published.

    Args:
        model: a Keras model, a checkpoint, the path of a checkpoint file, the name of a model on a hub as
            "timm:NAME.TAG", "hf:org/name@revision" or "keras:PRESET", or the name of a scale as "tiny", with random
            weights.
        directory: where the artifacts go; None for `artifacts/<model>-<size>`.
        formats: one or several of "savedmodel", "onnx", "tflite", and "tensorrt" where a GPU can prove its plans; None
            for the first three where they have the precisions.
        precisions: one or several, of each format where it has them.
        image_size: pixels of a side, or (height, width); a checkpoint is resized. A list of several is for one TFLite
            file with a signature for each; "dynamic" leaves height and width of ONNX and SavedModel open.
        patch_size: likewise.
        like: whose way of resampling a checkpoint; None for that of its own family, else timm's.
        num_classes: outputs of the head of a model that is made from a scale.
        seed: the seed of random weights, and of the choice of calibration images.
        reading: what a checkpoint file does not say.
        classes: names of classes that the text tower of a CLIP or SigLIP reads for a head of them, in place of those of
            `reading`.
        templates: prompts that each is put into, as "a photo of a {}", likewise.
        batch: images a call, or "dynamic"; None is dynamic, and 1 for TFLite.
        opset: the opset of ONNX; None is the default.
        layout: the layout of ONNX's input, "nhwc" or "nchw".
        include_preprocessing: the input is uint8 pixels, normalised inside.
        target: what files are made for: "cpu" (only standard operators); "web", ONNX and TFLite in browsers; of ONNX
            "cuda", "tensorrt", "qnn", or "transformers.js", for which a folder of that name is written beside the
            artifacts, in the form that the library expects; or what a maker's converter reads, whose command is then in
            the manifest: "rknn" and "tpu-mlir", and of SavedModel "coreml".
        outputs: names of what the files give, such as "logits", "class_token", "block_8.map"; none for the model's own
            output. What none of them reads is left out of the files.
        calibrate: images to measure the ranges of activations on, in place of those of `quantizing`.
        quantizing: how precisions other than fp32 are made.
        plans: how TensorRT plans are built.
        triton: a repository of NVIDIA Triton that the models go to as well.
        triton_provider: what executes them there; None for the usual one of each.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        check: raise where an artifact could not be made or failed its proof; without, the result says so.
        progress: called with what is being done.

    Returns:
        The published artifacts, with the proof of each.

    Raises:
        ExportError: an artifact could not be made, or failed its proof and is not published; its siblings are.
        CheckpointError: a model that is not a ViT, or not one under a new head.
        UsageError: options that exclude or need each other.
        ConfigError, DataError, MissingEngineError, EngineError, OutputError: options, images, engines or files.
    """
    asked = names(precisions, "precisions")
    wanted = Sizes.asked(_listed_sizes(image_size), like)
    usual = usual_formats(asked, target, served=triton is not None, sizes=wanted)
    jobs, skipped = plan(
        usual if formats is None else names(formats, "formats"),
        asked,
        batch=batch,
        opset=opset,
        layout=layout,
        include_preprocessing=include_preprocessing,
        target=target,
        sizes=wanted,
        outputs=names(outputs, "outputs") if outputs else (),
    )
    if triton is not None and wanted.in_words:
        raise ConfigError(
            "--triton serves models for one size of images, and --image-size is "
            f"{wanted.in_words.replace('-', ' and ')}",
            fix="give one size, or leave --triton out",
        )
    folder = None if directory is None else folder_path(directory, "directory")
    repository = None if triton is None else folder_path(triton, "triton")
    quantizing = _calibrated(quantizing, calibrate)
    if seed is not None:
        quantizing = dataclasses.replace(quantizing, seed=seed)
    check_repository(repository, triton_provider, jobs, plans)
    pipeline.check([job.format for job in jobs], [job.precision for job in jobs])
    check_plan_options(jobs, plans)
    compiled.check_compiled(jobs, plans)
    if folder is not None:
        check_targets(targets(folder, jobs, keep_failed=keep_failed, unproven=plans.unproven), force=force)
    progress("loading the model")
    given: dict[str, Size | None] = {"image_size": _first_size(model, image_size, wanted), "patch_size": patch_size}
    overrides = {name: sides(size) for name, size in given.items() if size is not None}
    width = {} if num_classes is None else {"num_classes": num_classes}
    stated = stated_fields(_in_words(reading, classes, templates))
    with telling(progress):
        convention = None if wanted.in_words and not overrides else like
        source = open_source(model, {**overrides, **width}, seed, convention, stated)
    checkpoint, resized = wanted.of(source.checkpoint)
    jobs = [dataclasses.replace(job, options=dataclasses.replace(job.options, resized=resized)) for job in jobs]
    checkpoint, jobs = with_outputs(checkpoint, jobs)
    folder = folder or Path("artifacts") / f"{source.name}-{wanted.in_words or in_words(checkpoint.config.image_size)}"
    models = places(repository, source.name, jobs, force=force)
    library = transformers_js.folder_for(folder, jobs, quantizing, force=force)
    if library is not None:
        transformers_js.check_model(checkpoint)
    made = compiled.export(
        checkpoint,
        folder,
        jobs,
        quantizing,
        plans=plans,
        force=force,
        keep_failed=keep_failed,
        progress=progress,
    )
    served = serve(made.results, models, triton_provider, force=force)
    placed = {} if library is None else transformers_js.write_folder(made.results, library, force=force)
    origins = None if source.origin is None else {Path(str(model)): source.origin}
    notes: tuple[str, ...] = (source.note,) if source.note else ()
    notes += notes_on_idle((job.precision for job in jobs), quantizing)
    notes += probability_notes(jobs[0].options.outputs, checkpoint.config)
    if library is not None:
        notes += transformers_js.differences(checkpoint.preprocess, checkpoint.config)
    for result in made.results:
        notes += conversions.told(result.artifact) if result.published and result.parity.ok else ()
    notes += browsers.told(folder, _published(made))
    exports = ExportOutcome(
        _published(made),
        records_of(made, served, placed),
        _is_ok(made),
        (*skipped, *made.skipped),
        tuple(made.failed),
        origins,
        made,
        served,
        notes,
    )
    if check:
        exports.raise_unless_ok()
    return exports


def _listed_sizes(given: Size | str | Sequence[Size | str] | None) -> tuple[tuple[int, int] | str, ...]:
    """Each size that was asked for, as (height, width) or "dynamic".

    Raises:
        ConfigError: what is neither.
    """
    if given is None:
        return ()
    pair = isinstance(given, tuple) and len(given) == 2 and all(isinstance(side, int) for side in given)
    listed = [given] if isinstance(given, int | str) or pair else [*given]
    if any(isinstance(size, str) and size != DYNAMIC for size in listed):
        raise ConfigError(
            f"image_size is {given!r}", fix=f"give pixels, (height, width), several of these, or {DYNAMIC}"
        )
    return tuple(size if isinstance(size, str) else as_pair(size, "image_size") for size in listed)


def _first_size(model: Model, given: Size | str | Sequence[Size | str] | None, wanted: Sizes) -> Size | None:
    """The size that a model is read at: as it is where it has to be resized to several."""
    if wanted.is_dynamic or (wanted.pixels and not (isinstance(model, str) and model in SCALE_CONFIGS)):
        return None
    listed = _listed_sizes(given)
    return None if not listed or isinstance(listed[0], str) else listed[0]


def quantize(
    artifact: ArtifactLike,
    directory: PathLike,
    *,
    precisions: str | Sequence[str],
    calibrate: PathLike | None = None,
    quantizing: QuantizeOptions = QuantizeOptions(),
    force: bool = False,
    keep_failed: bool = False,
    check: bool = True,
    progress: Tell = silent,
) -> QuantizeOutcome:
    """Make `directory/<format>-<precision>/` from an fp32 artifact, each proven before it is published.

    Args:
        artifact: its folder, one of those that `export` returned, or a folder of artifacts, of which those in fp32 are
            quantized.
        directory: where the artifacts go.
        precisions: one or several of those that its format has.
        calibrate: images to measure the ranges of activations on, in place of those of `quantizing`.
        quantizing: how.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        check: raise where an artifact could not be made or failed its proof; without, the result says so.
        progress: called with what is being done.

    Returns:
        The published artifacts, with the proof of each, and its size, speed and accuracy beside fp32.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        ExportError: an artifact could not be made, or failed its proof and is not published; its siblings are.
        ConfigError, DataError, MissingEngineError, EngineError, OutputError: options, images, engines or files.
    """
    folder, asked = folder_path(directory, "directory"), names(precisions, "precisions")
    works, skipped = _works(artifact, asked)
    quantizing = _calibrated(quantizing, calibrate)
    for source, _ in works:
        _check_runs(source)
    made = quantize_each(works, folder, quantizing, force=force, keep_failed=keep_failed, progress=progress)
    quantized = QuantizeOutcome(
        _published(made),
        records_of(made, {}),
        _is_ok(made),
        (*skipped, *made.skipped),
        tuple(made.failed),
        made=made,
    )
    if check:
        quantized.raise_unless_ok()
    return quantized


def _check_runs(source: Artifact) -> None:
    """Let a file answer one golden image before a library quantizes it, which would end in whatever it stumbles over.

    Raises:
        ArtifactError: the golden data are missing or damaged.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
    """
    if source.format not in QUANTIZERS:
        return
    with open_session(source, FORMATS[source.format].proving_runtime) as session:
        session.infer(read_golden(source).images[:1])


def _works(artifact: ArtifactLike, precisions: tuple[str, ...]) -> tuple[list[Work], list[str]]:
    if isinstance(artifact, Artifact):
        return work_of(artifact, precisions)
    return plain_bundles(artifact_path(artifact), precisions)


def _published(made: Made) -> tuple[Artifact, ...]:
    return tuple(result.artifact for result in made.results if result.published)


def _is_ok(made: Made) -> bool:
    return all(result.parity.ok for result in made.results) and not made.failed


def _in_words(
    reading: CheckpointOptions, classes: Sequence[str] | None, templates: str | Sequence[str]
) -> CheckpointOptions:
    if classes is not None:
        reading = dataclasses.replace(reading, classes=classes)
    return dataclasses.replace(reading, template=as_tuple(templates)) if templates else reading


def _calibrated(quantizing: QuantizeOptions, calibrate: PathLike | None) -> QuantizeOptions:
    if calibrate is None:
        return quantizing
    return dataclasses.replace(quantizing, calibrate=folder_path(calibrate, "calibrate"))
