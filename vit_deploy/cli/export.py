"""`vit-deploy export`: from a checkpoint or a scale to proven artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import (
    QUANTIZED,
    Force,
    ImageSize,
    KeepFailed,
    Like,
    NumClasses,
    OutputOptions,
    PatchSize,
    Seed,
    parse_size,
    split_at_commas,
)
from vit_deploy.cli.plans import BatchRanges, PlanTF32, TensorRT, Unproven, plan_options
from vit_deploy.cli.signature import command
from vit_deploy.cli.triton import Triton, TritonProvider
from vit_deploy.core.options import CheckpointOptions, QuantizeOptions

FORMATS = ("savedmodel", "onnx", "tflite")


@command
def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHECKPOINT|SCALE]",
            help="A checkpoint, or pico, tiny, small, base, large, huge with random weights.",
            show_default="tiny",
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="onnx, tflite, savedmodel or tensorrt; repeat for more, or join by commas.",
            callback=split_at_commas,
            show_default="all that have the precisions, but tensorrt",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            "-p",
            help=f"fp32, {QUANTIZED}",
            callback=split_at_commas,
            show_default="fp32",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where the bundles go.", show_default="artifacts/…"),
    ] = None,
    image_size: ImageSize = None,
    patch_size: PatchSize = None,
    like: Like = None,
    num_classes: NumClasses = None,
    seed: Seed = None,
    *,
    reading: CheckpointOptions,
    batch: Annotated[
        str | None,
        typer.Option(metavar="N|dynamic", help="Images a call.", show_default="dynamic; TFLite 1"),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX, 17 to 21.", show_default="20")] = None,
    layout: Annotated[str, typer.Option(help="Of ONNX's input: nhwc or nchw.")] = "nhwc",
    target: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="cpu|cuda|tensorrt",
            help="What an ONNX file is made for; cpu: standard operators alone.",
        ),
    ] = "cpu",
    include_preprocessing: Annotated[
        bool, typer.Option("--include-preprocessing", help="The input becomes uint8 pixels, normalised inside.")
    ] = False,
    triton: Triton = None,
    triton_provider: TritonProvider = None,
    tensorrt: TensorRT = None,
    batch_range: BatchRanges = None,
    allow_tf32: PlanTF32 = False,
    unproven: Unproven = False,
    force: Force = False,
    keep_failed: KeepFailed = False,
    quantizing: QuantizeOptions,
    printing: OutputOptions,
) -> int:
    """Write a model as SavedModel, ONNX and TFLite, and prove each before it is published."""
    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli import triton as serving
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.quantizing import finish
    from vit_deploy.core.staging import check_targets
    from vit_deploy.exporters.plan import DYNAMIC, PRECISIONS, plan
    from vit_deploy.exporters.publish import targets
    from vit_deploy.exporters.quantization.compiled import check_compiled
    from vit_deploy.exporters.quantization.compiled import export as run
    from vit_deploy.exporters.quantization.pipeline import check
    from vit_deploy.verification.targets import load_source

    if batch is not None and batch != DYNAMIC and not (batch.isascii() and batch.isdigit()):
        raise typer.BadParameter(f"--batch is {batch!r}; expected a number or dynamic")
    precisions = precision or ["fp32"]
    for_onnx = ("onnx",) if triton or target != "cpu" else FORMATS
    able = [name for name in for_onnx if set(precisions) & set(PRECISIONS[name])]
    jobs, skipped = plan(
        format or able or for_onnx,
        precisions,
        batch=batch,
        opset=opset,
        layout=layout,
        include_preprocessing=include_preprocessing,
        target=target,
    )
    serving.check_options(triton, triton_provider, jobs, plans=tensorrt)
    check([job.format for job in jobs], [job.precision for job in jobs])
    plans = plan_options(jobs, tensorrt, batch_range, allow_tf32=allow_tf32, unproven=unproven)
    check_compiled(jobs, plans)
    overrides: dict[str, object] = {}
    if image_size is not None:
        overrides["image_size"] = parse_size(image_size, "--image-size")
    if patch_size is not None:
        overrides["patch_size"] = parse_size(patch_size, "--patch-size")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if output is not None:
        check_targets(targets(output, jobs, keep_failed=keep_failed, unproven=unproven), force=force)
    out = Output("export", printing)
    with out.progress() as progress:
        progress("loading the model")
        stated = stated_fields(reading)
        loaded = load_source(source, overrides, seed, like, stated)
        height, width = loaded.checkpoint.config.image_size
        directory = output or Path("artifacts") / f"{loaded.name}-{height}x{width}"
        places = serving.places(triton, loaded.name, jobs, force=force)
        made = run(
            loaded.checkpoint,
            directory,
            jobs,
            quantizing,
            plans=plans,
            force=force,
            keep_failed=keep_failed,
            progress=progress,
        )
        served = serving.serve(made.results, places, triton_provider, force=force)
    if loaded.origin is not None:
        out.assumed(Path(str(source)), loaded.origin)
    if loaded.note:
        out.note(loaded.note)
    return finish(out, made, skipped, served)
