"""`vit-deploy export`: from a checkpoint or a scale to proven artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.completion import completion
from vit_deploy.cli.options import (
    KNOWN_FORMATS,
    KNOWN_PRECISIONS,
    KNOWN_SCALES,
    QUANTIZED,
    Force,
    ImageSizes,
    KeepFailed,
    Like,
    NumClasses,
    OutputOptions,
    PatchSize,
    Seed,
)
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, Option, PlanOptions, QuantizeOptions
from vit_deploy.core.options.parsing import batch_size

FILE, SERVING = "The file", "Serving with Triton"


@command
def export(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[CHECKPOINT|SCALE]",
            help="A checkpoint, a name as timm:NAME.TAG, or pico, tiny, small, base, large, huge with random weights.",
            show_default="tiny",
            autocompletion=completion(KNOWN_SCALES),
        ),
    ] = None,
    format: Annotated[
        tuple[str, ...] | None,
        Option(
            names=("--format", "-f"),
            help="onnx, tflite, savedmodel or tensorrt; repeat for more, or join by commas.",
            commas=True,
            show_default="all that have the precisions, but tensorrt",
            values=KNOWN_FORMATS,
        ),
    ] = None,
    precision: Annotated[
        tuple[str, ...] | None,
        Option(
            names=("--precision", "-p"),
            help=f"fp32, {QUANTIZED}",
            commas=True,
            show_default="fp32",
            values=KNOWN_PRECISIONS,
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        Option(names=("--directory", "-o"), metavar="DIR", help="Where the artifacts go.", show_default="artifacts/…"),
    ] = None,
    output: Annotated[
        tuple[str, ...] | None,
        Option(
            names=("--output",),
            metavar="NAME",
            help="logits, probabilities, features, class_token, patch_tokens, map, block_8.map, block_11.attention, …; "
            "repeat for more.",
            commas=True,
            show_default="logits; features without a head",
            panel=FILE,
        ),
    ] = None,
    image_size: ImageSizes = None,
    patch_size: PatchSize = None,
    like: Like = None,
    num_classes: NumClasses = None,
    seed: Seed = None,
    force: Force = False,
    keep_failed: KeepFailed = False,
    batch: Annotated[
        int | str | None,
        Option(
            metavar="N|dynamic",
            help="Images a call.",
            show_default="dynamic; TFLite 1",
            parse=batch_size,
            panel=FILE,
        ),
    ] = None,
    opset: Annotated[int | None, Option(help="Of ONNX, 17 to 21.", show_default="20", panel=FILE)] = None,
    layout: Annotated[str, Option(help="Of ONNX's input: nhwc or nchw.", panel=FILE)] = "nhwc",
    target: Annotated[
        str,
        Option(
            names=("--for",),
            metavar="TARGET",
            help="What files are made for: cpu (standard operators alone), cuda, tensorrt, web (TFLite too), "
            "transformers.js, qnn, rknn, tpu-mlir or coreml (SavedModel).",
            values="vit_deploy.exporters:Target",
            panel=FILE,
        ),
    ] = "cpu",
    include_preprocessing: Annotated[
        bool, Option(help="The input becomes uint8 pixels, normalised inside.", panel=FILE)
    ] = False,
    *,
    reading: CheckpointOptions,
    quantizing: QuantizeOptions,
    plans: PlanOptions,
    triton: Annotated[
        Path | None,
        Option(metavar="REPOSITORY", help="Put the models into a repository of NVIDIA Triton too.", panel=SERVING),
    ] = None,
    triton_provider: Annotated[
        str | None,
        Option(
            metavar="cpu|cuda|tensorrt",
            help="What executes them there.",
            show_default="as --for; else cuda, cpu for int8",
            values=("cpu", "cuda", "tensorrt"),
            panel=SERVING,
        ),
    ] = None,
    printing: OutputOptions,
) -> int:
    """Write a model as SavedModel, ONNX and TFLite, and prove each before it is published."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.quantizing import show_artifacts

    out = Output("export", printing)
    with out.progress() as progress:
        done = api.export(
            source or "tiny",
            directory,
            formats=format,
            precisions=precision or ("fp32",),
            image_size=image_size,
            patch_size=patch_size,
            like=like,
            num_classes=num_classes,
            seed=seed,
            reading=reading,
            batch=batch,
            opset=opset,
            layout=layout,
            include_preprocessing=include_preprocessing,
            target=target,
            outputs=output or (),
            quantizing=quantizing,
            plans=plans,
            triton=triton,
            triton_provider=triton_provider,
            force=force,
            keep_failed=keep_failed,
            check=False,
            progress=progress,
        )
    out.tell_assumed(done)
    return show_artifacts(out, done)
