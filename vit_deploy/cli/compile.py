"""The command `vit-deploy compile`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option


@command
def compile(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT",
            help="For Ethos-U and microcontrollers TFLite in int8-full, for Hexagon ONNX.",
            show_default=False,
        ),
    ],
    target: Annotated[
        tuple[str, ...],
        Option(
            names=("--for",),
            metavar="ACCELERATOR",
            help="As ethos-u55-256, tflm (TensorFlow Lite Micro), qnn-sm8650; repeat for more, or join by commas.",
            commas=True,
            values="vit_deploy.exporters.npu:known_targets",
        ),
    ],
    output: Annotated[Path, Option(names=("--output", "-o"), metavar="DIR", help="Where the artifacts go.")],
    setting: Annotated[
        tuple[str, ...] | None,
        Option(
            names=("--set",),
            metavar="NAME=VALUE",
            help="What the compiler is told besides, as memory-mode=Sram_Only; repeat for more, or join by commas.",
            commas=True,
            show_default="its own",
        ),
    ] = None,
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Compile an artifact for accelerators, with the compiler's report of operators, memory and estimated speed."""
    from vit_deploy.api import compiling as api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    out = Output("compile", printing)
    settings = dict(_pair(text) for text in setting or ())
    with out.progress() as progress:
        made = api.compile(artifact, output, targets=target, settings=settings, force=force, progress=progress)
    for one in made:
        for fallback in one.compiled.left:
            left = f"leaves {fallback.count} {fallback.operator} to the CPU: {fallback.reason}"
            out.note(f"{one.compiled.target} {left}")
        if one.compiled.proof:
            out.note(f"{one.compiled.target}: {one.compiled.proof}")
        if one.compiled.left:
            out.note(f"the estimates for {one.compiled.target} are of what runs on it, without the CPU's part")
    rows = [
        (
            str(one.artifact.directory),
            megabytes(one.bytes),
            str(one.compiled.on_npu),
            str(one.compiled.on_cpu),
            _figure(_memory(one.compiled.estimates), 1e3, ".0f"),
            _figure(one.compiled.estimates.get("inferences_per_s"), 1, ".3g"),
        )
        for one in made
    ]
    columns = (paths("artifact"), "size", "on the NPU", "on the CPU", "SRAM kB", "inferences/s (estimate)")
    return out.show(made, columns=ranked(columns, ["inferences/s (estimate)", "size", "SRAM kB"]), rows=rows)


def _memory(estimates: Mapping[str, float]) -> float | None:
    return estimates.get("sram_bytes", estimates.get("arena_bytes"))


def _figure(value: float | None, unit: float, spec: str) -> str:
    return "-" if value is None else format(value / unit, spec)


def _pair(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not (name and is_there and value):
        raise typer.BadParameter(f"{text!r} is no setting; expected NAME=VALUE, as memory-mode=Sram_Only")
    return name, value
