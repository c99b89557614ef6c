"""The artifacts of an export, one for every combination of format and precision that exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Probabilities
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Format, Target
from vit_deploy.core.format_table import EXPORTED_BY_DEFAULT, FORMATS, SERVED_BY_DEFAULT
from vit_deploy.core.outputs import PROBABILITIES, outputs_of_model
from vit_deploy.core.reduced import reduced
from vit_deploy.core.registry import Registry
from vit_deploy.errors import ConfigError, EngineError, did_you_mean
from vit_deploy.exporters import COMPILERS, EXPORTERS, ExportOptions
from vit_deploy.exporters.conversions import CONVERSIONS
from vit_deploy.exporters.open_or_many import ONE_SIZE, Sizes
from vit_deploy.exporters.proving import cuda_failure
from vit_deploy.exporters.target_rules import DYNAMIC, batch_for, opset_for, refuse_unfit, rules_of
from vit_deploy.runtimes import RUNTIMES

INTEGER_INPUT = frozenset(("int8-full",))


@dataclass(frozen=True)
class Job:
    """One artifact to make."""

    format: str
    precision: str
    options: ExportOptions

    @property
    def name(self) -> str:
        """The name of the artifact's folder."""
        return f"{self.format}-{self.precision}"


def plan(
    formats: Sequence[str],
    precisions: Sequence[str],
    *,
    batch: int | str | None = None,
    opset: int | None = None,
    layout: str = "nhwc",
    include_preprocessing: bool = False,
    target: str = Target.CPU,
    sizes: Sizes = ONE_SIZE,
    outputs: Sequence[str] = (),
) -> tuple[list[Job], list[str]]:
    """Every combination that exists, and in words those that do not.

    Args:
        formats: names of exporters.
        precisions: the requested precisions.
        batch: images a call, or "dynamic"; None is dynamic, and 1 for TFLite.
        opset: the opset of ONNX; None is the default.
        layout: the layout of ONNX's input.
        include_preprocessing: pixels in.
        target: what files are made for, of `core.format.Target`.
        sizes: the sizes of images that a file is for.
        outputs: the names of outputs; none for the one that each model has.

    Raises:
        ConfigError: an unknown name, a format with none of the precisions, or options that fit no format.
        MissingEngineError: an exporter or the runtime that proves it is not installed.
    """
    jobs: list[Job] = []
    skipped: list[str] = []
    usual = _usual_precisions()
    known = known_precisions()
    if target not in list(Target):
        raise ConfigError(f"files are not made for {target!r} here", fix=f"choose one of {', '.join(Target)}")
    wanted = Target(target)
    for precision in precisions:
        if precision not in known:
            raise ConfigError(f"unknown precision {precision!r}", fix=did_you_mean(precision, known))
        if precision not in usual:
            _check_is_for(precision, wanted, sizes)
    for name in formats:
        check_exists(name)
    refuse_unfit(wanted, batch=batch, opset=opset, pixels=include_preprocessing)
    _check_shaping(formats, opset=opset, layout=layout, target=wanted)
    sizes.check(formats, wanted)
    for name in dict.fromkeys(formats):
        check_installed(name)
        format = FORMATS[name]
        there = format.precisions_for(wanted)
        possible = [precision for precision in dict.fromkeys(precisions) if precision in there]
        if not possible:
            made_for = f" for {target}" if wanted in format.precisions and wanted is not Target.CPU else ""
            itself = "; its converter quantizes by itself" if wanted in CONVERSIONS else ""
            raise ConfigError(
                f"{name}{made_for} has none of the precisions {', '.join(precisions)}",
                fix=f"{name}{made_for} can be made in {', '.join(there)}{itself}",
            )
        if outputs and wanted is Target.TRANSFORMERS_JS:
            raise ConfigError(
                f"files for transformers.js have one output, and --output is {', '.join(outputs)}",
                fix="leave --output out",
            )
        if outputs and format.made_of:
            raise ConfigError(
                f"{format.title} files have one output, and --output is {', '.join(outputs)}",
                fix="leave --output out, or give another format",
            )
        if "bf16" in possible:
            _check_cuda_is_here()
        if include_preprocessing and INTEGER_INPUT & set(possible):
            raise ConfigError(
                "the input of int8-full is int8, and with --include-preprocessing it would be uint8 pixels",
                fix="leave --include-preprocessing out for int8-full",
            )
        if format.has_fixed_batch and batch == DYNAMIC:
            raise ConfigError(
                f"{format.title} files are made for a fixed batch, and --batch is dynamic", fix="give a number"
            )
        skipped += [
            f"{name}-{precision}: {why_missing(format, precision, wanted)}"
            for precision in dict.fromkeys(precisions)
            if precision not in possible
        ]
        own = ExportOptions(
            batch=batch_for(format.target(wanted), batch, fixed=format.has_fixed_batch),
            opset=opset_for(format.target(wanted), opset if format.has_opset else None),
            layout=_layout(format, layout, wanted),
            include_preprocessing=include_preprocessing,
            target=format.target(wanted),
            dynamic_size=sizes.is_dynamic,
            like=sizes.like,
            outputs=tuple(outputs),
        )
        jobs += [Job(name, precision, own) for precision in possible]
    return jobs, skipped


def why_missing(format: Format, precision: str, target: str) -> str:
    """Why a format has no files of a precision for a target, in words."""
    if target in format.precisions and target != Target.CPU:
        return f"has no kernels in files for {target}"
    titles = [record.title for record in FORMATS.values() if precision in record.every_precision]
    return f"of {precision} there are {' and '.join(titles)} files alone"


def _layout(format: Format, requested: str, target: Target) -> str:
    """The layout of a file's input, which some targets do not leave open."""
    if own := rules_of(format.target(target)).layout:
        return own
    return requested if format.has_layout else "nhwc"


def with_outputs(checkpoint: Checkpoint, jobs: Sequence[Job]) -> tuple[Checkpoint, list[Job]]:
    """The model that the outputs of jobs read, at every size, and the jobs; those of its own output alone name none.

    Args:
        checkpoint: the model.
        jobs: jobs of the same outputs and sizes.

    Raises:
        ConfigError: outputs that the model does not have, or not together.
    """
    named = outputs_of_model(jobs[0].options.outputs, checkpoint.config)
    checkpoint = reduced(checkpoint, named)
    names = tuple(output.name for output in named)
    own = names == (checkpoint.config.output_name,)
    resized = tuple(reduced(one, outputs_of_model(names, one.config)) for one in jobs[0].options.resized)
    made = [dataclasses.replace(job.options, outputs=() if own else names, resized=resized) for job in jobs]
    return checkpoint, [dataclasses.replace(job, options=options) for job, options in zip(jobs, made, strict=True)]


def probability_notes(outputs: Sequence[str], config: ViTConfig) -> tuple[str, ...]:
    """What makes the probabilities of a file, in words; nothing where it gives none."""
    if PROBABILITIES not in outputs:
        return ()
    if config.probabilities is Probabilities.SIGMOID:
        return ("probabilities are sigmoids of the logits, as the model says",)
    return (
        "probabilities are the softmax of the logits: the model does not say that an image may be of several classes",
    )


def known_formats() -> tuple[str, ...]:
    """Every format that can be exported."""
    return tuple(name for name, record in FORMATS.items() if record.precisions)


def known_precisions() -> tuple[str, ...]:
    """Every precision that some format has."""
    every = (precision for record in FORMATS.values() for precision in record.every_precision)
    return tuple(dict.fromkeys((*_usual_precisions(), *every)))


def _usual_precisions() -> tuple[str, ...]:
    """The precisions of files that are made for no target in particular."""
    made = [format for format in FORMATS.values() if format.precisions]
    return tuple(precision for format in made for precision in format.precisions_for(Target.CPU))


def usual_formats(
    precisions: Sequence[str], target: str, *, served: bool = False, sizes: Sizes = ONE_SIZE
) -> Sequence[str]:
    """The formats that are made where none is named: those that have one of the precisions, of those for the target.

    Args:
        precisions: the requested precisions.
        target: what the files are made for.
        served: whether models go into a repository of Triton.
        sizes: the sizes of images that a file is for.
    """
    usual = [name for name in (SERVED_BY_DEFAULT if served else EXPORTED_BY_DEFAULT) if sizes.fit(FORMATS[name])]
    fitting = [name for name in usual if target in FORMATS[name].precisions] or [
        name for name in usual if FORMATS[name].is_made_for_targets
    ]
    return [name for name in fitting if set(precisions) & set(FORMATS[name].every_precision)] or fitting


def _check_is_for(precision: str, target: Target, sizes: Sizes) -> None:
    """Refuse a precision of which there are files for other targets alone."""
    made = [
        (record, one) for record in FORMATS.values() for one, table in record.precisions.items() if precision in table
    ]
    others = list(dict.fromkeys(one for _, one in made))
    if sizes.in_words:
        raise ConfigError(
            f"{precision} is for {made[0][0].title} files for {', '.join(others)}, which are made for one size, and "
            f"--image-size is {sizes.in_words.replace('-', ' and ')}",
            fix=f"give one size, with --for {others[0]}, or another precision, such as fp16",
        )
    if target not in others:
        raise ConfigError(
            f"{precision} is for {made[0][0].title} files for {', '.join(others)}", fix=f"add --for {others[0]}"
        )


def _check_shaping(formats: Sequence[str], *, opset: int | None, layout: str, target: Target) -> None:
    """Refuse options that say nothing of any of these formats."""
    records = [FORMATS[name] for name in formats]
    if target in CONVERSIONS and not all(target in record.precisions for record in records):
        made = [record for record in FORMATS.values() if target in record.precisions]
        raise ConfigError(
            f"files for {target} are {' and '.join(record.title for record in made)}, and the formats are "
            f"{', '.join(formats)}",
            fix=f"choose --format {made[0].name}",
        )
    has_effect = (
        opset is None or any(record.has_opset for record in records),
        layout == "nhwc" or any(record.has_layout for record in records),
        target is Target.CPU or any(target in record.precisions for record in records),
    )
    if not all(has_effect):
        shaped = [record for record in FORMATS.values() if record.exporter and (record.has_opset or record.has_layout)]
        titles = " and ".join(record.title for record in shaped)
        raise ConfigError(
            f"--layout, --opset and --for shape {titles} files, and the formats are {', '.join(formats)}",
            fix=f"leave them out, or add --format {shaped[0].name}",
        )


def check_exists(format: str) -> None:
    """Whether files of a format can be made.

    Raises:
        ConfigError: they cannot.
    """
    Registry("format", {**EXPORTERS, **COMPILERS})[format]


def check_installed(format: str) -> None:
    """Whether what writes a format, and what proves it, is installed.

    Raises:
        ConfigError: there is no such format.
        MissingEngineError: it is not.
    """
    Registry("format", {**EXPORTERS, **COMPILERS}).check(format)
    RUNTIMES.check(FORMATS[format].proving_runtime)
    if FORMATS[format].made_of:
        check_installed(FORMATS[format].made_of)


def _check_cuda_is_here() -> None:
    if (failure := cuda_failure()) is not None:
        raise EngineError(
            f"bf16 can be proven on an NVIDIA GPU alone, and there is none to be used: {failure.message}",
            fix="export it on a machine with such a GPU, or in fp16",
        )
