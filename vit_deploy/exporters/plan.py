"""The artifacts of an export, one for every combination of format and precision that exists."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from vit_deploy.core.registry import Registry
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.exporters import COMPILERS, EXPORTERS, MADE_OF, ExportOptions, Target
from vit_deploy.exporters.proving import cuda_failure
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT

FP32 = "fp32"
PRECISIONS: dict[str, tuple[str, ...]] = {
    "onnx": (FP32, "fp16", "int8", "int8-static", "int4"),
    "tflite": (FP32, "fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"),
    "savedmodel": (FP32,),
}
"""The precisions that can be made of each format; all but fp32 are made of its fp32 file, see `quantizers`; plans are
compiled of the ONNX file of the same precision, see `quantizers.compiled`."""

SHAPED = frozenset(("onnx", "tensorrt"))  # formats that take a layout and an opset

PRECISIONS_FOR: dict[Target, tuple[str, ...]] = {
    Target.CPU: PRECISIONS["onnx"],
    Target.CUDA: (FP32, "fp16", "bf16"),
    Target.TENSORRT: (FP32, "fp16", "int8-static"),
}
"""The precisions of ONNX files by what they are made for: those that it has kernels for."""

PRECISIONS["tensorrt"] = PRECISIONS_FOR[Target.TENSORRT]

INTEGER_INPUT = frozenset(("int8-full",))

DYNAMIC = "dynamic"


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
) -> tuple[list[Job], list[str]]:
    """Every combination that exists, and in words those that do not.

    Args:
        formats: names of exporters.
        precisions: the requested precisions.
        batch: images a call, or "dynamic"; None is dynamic, and 1 for TFLite.
        opset: the opset of ONNX; None is the default.
        layout: the layout of ONNX's input.
        include_preprocessing: pixels in.
        target: what ONNX files are made for, of `exporters.Target`.

    Raises:
        ConfigError: an unknown name, a format with none of the precisions, or options that fit no format.
        MissingEngineError: an exporter or the runtime that proves it is not installed.
    """
    jobs: list[Job] = []
    skipped: list[str] = []
    known = known_precisions()
    if target not in list(Target):
        raise ConfigError(f"ONNX files are not made for {target!r} here", fix=f"choose one of {', '.join(Target)}")
    for precision in precisions:
        if precision not in known:
            raise ConfigError(f"unknown precision {precision!r}", fix=f"choose one of {', '.join(known)}")
        others = [each for each, table in PRECISIONS_FOR.items() if precision in table]
        if not any(precision in table for table in PRECISIONS.values()) and target not in others:
            raise ConfigError(f"{precision} is for ONNX files for {', '.join(others)}", fix=f"add --for {others[0]}")
    makes = {"onnx": set(Target), "tensorrt": {Target.CPU, Target.TENSORRT}}  # plans are of the graph for TensorRT
    shaped = layout != "nhwc" or opset is not None
    if (shaped and not SHAPED & set(formats)) or not any(target in makes.get(each, {Target.CPU}) for each in formats):
        raise ConfigError(
            f"--layout, --opset and --for shape ONNX files, and the formats are {', '.join(formats)}",
            fix="leave them out, or add --format onnx",
        )
    for format in dict.fromkeys(formats):
        check_installed(format)
        there = PRECISIONS_FOR[Target(target)] if format == "onnx" else PRECISIONS[format]
        possible = [precision for precision in dict.fromkeys(precisions) if precision in there]
        if not possible:
            made_for = f" for {target}" if format == "onnx" else ""
            raise ConfigError(
                f"{format}{made_for} has none of the precisions {', '.join(precisions)}",
                fix=f"{format}{made_for} can be made in {', '.join(there)}",
            )
        if "bf16" in possible:
            _check_cuda_is_here()
        if include_preprocessing and INTEGER_INPUT & set(possible):
            raise ConfigError(
                "the input of int8-full is int8, and with --include-preprocessing it would be uint8 pixels",
                fix="leave --include-preprocessing out for int8-full",
            )
        if format == "tflite" and batch == DYNAMIC:
            raise ConfigError("TFLite files are made for a fixed batch, and --batch is dynamic", fix="give a number")
        why = f"has no kernels in files for {target}" if format == "onnx" and target != Target.CPU else "does not exist"
        skipped += [f"{format}-{each}: {why}" for each in dict.fromkeys(precisions) if each not in possible]
        count = (1 if format == "tflite" else None) if batch in (None, DYNAMIC) else int(batch or 0)
        if format in SHAPED:
            own = ExportOptions(count, layout=layout, include_preprocessing=include_preprocessing)
            own = dataclasses.replace(own, target=Target(target) if format == "onnx" else Target.TENSORRT)
            own = own if opset is None else ExportOptions(**{**vars(own), "opset": opset})
        else:
            own = ExportOptions(batch=count, include_preprocessing=include_preprocessing)
        jobs += [Job(format, precision, own) for precision in possible]
    return jobs, skipped


def known_precisions() -> tuple[str, ...]:
    """Every precision that some format has."""
    tables = [*PRECISIONS.values(), *PRECISIONS_FOR.values()]
    return tuple(dict.fromkeys(precision for each in tables for precision in each))


def check_installed(format: str) -> None:
    """Whether what writes a format, and what proves it, is installed.

    Raises:
        ConfigError: there is no such format.
        MissingEngineError: it is not.
    """
    Registry("format", {**EXPORTERS, **COMPILERS}).check(format)
    RUNTIMES.check(RUNTIMES_OF_FORMAT[format][0])
    if format in MADE_OF:
        check_installed(MADE_OF[format])


def _check_cuda_is_here() -> None:
    if (failure := cuda_failure()) is not None:
        raise EngineError(
            f"bf16 can be proven on an NVIDIA GPU alone, and there is none to be used: {failure.message}",
            fix="export it on a machine with such a GPU, or in fp16",
        )
