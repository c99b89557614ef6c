"""`vit-deploy export`: from a checkpoint or a scale to proven artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Force, ImageSize, Json, Like, NumClasses, PatchSize, Quiet, Seed, Verbose, parse_size

FORMATS = ("savedmodel", "onnx", "tflite")


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
        typer.Option("--format", "-f", help="onnx, tflite or savedmodel; repeat for more.", show_default="all three"),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option("--precision", "-p", help="fp32; repeat for more.", show_default="fp32")
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
    batch: Annotated[
        str | None,
        typer.Option(metavar="N|dynamic", help="Images a call.", show_default="dynamic; TFLite 1"),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX, 17 to 21.", show_default="20")] = None,
    layout: Annotated[str, typer.Option(help="Of ONNX's input: nhwc or nchw.")] = "nhwc",
    include_preprocessing: Annotated[
        bool, typer.Option("--include-preprocessing", help="The input becomes uint8 pixels, normalised inside.")
    ] = False,
    force: Force = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Publish what fails its proof as <name>.failed.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Write a model as SavedModel, ONNX and TFLite, and prove each before it is published."""
    from vit_deploy import report
    from vit_deploy.cli.output import Output
    from vit_deploy.exporters.stage import DYNAMIC, plan, targets, to_json
    from vit_deploy.exporters.stage import export as run
    from vit_deploy.report import megabytes
    from vit_deploy.staging import check_targets
    from vit_deploy.targets import load_source

    if batch is not None and batch != DYNAMIC and not (batch.isascii() and batch.isdigit()):
        raise typer.BadParameter(f"--batch is {batch!r}; expected a number or dynamic")
    jobs, skipped = plan(
        format or FORMATS,
        precision or ("fp32",),
        batch=batch,
        opset=opset,
        layout=layout,
        include_preprocessing=include_preprocessing,
    )
    overrides: dict[str, object] = {}
    if image_size is not None:
        overrides["image_size"] = parse_size(image_size, "--image-size")
    if patch_size is not None:
        overrides["patch_size"] = parse_size(patch_size, "--patch-size")
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if output is not None:
        check_targets(targets(output, jobs, keep_failed=keep_failed), force=force)
    out = Output("export", as_json=json, quiet=quiet)
    with out.progress() as progress:
        progress("loading the model")
        loaded = load_source(source, overrides, seed, like)
        height, width = loaded.checkpoint.config.image_size
        directory = output or Path("artifacts") / f"{loaded.name}-{height}x{width}"
        results = run(loaded.checkpoint, directory, jobs, force=force, keep_failed=keep_failed, progress=progress)
    if loaded.note:
        out.note(loaded.note)
    for result in results:
        for reason in result.parity.failures:
            where = f"published as {result.artifact.directory}" if result.published else "not published"
            out.note(f"{result.artifact.name} failed its proof and is {where}: {reason}")
    rows = [
        (
            str(result.artifact.directory),
            megabytes(result.bytes),
            f"{result.seconds:.1f}",
            f"{result.verify_seconds:.1f}",
            *report.judged(result.parity),
            result.parity.verdict if result.parity.ok else result.parity.verdict.upper(),
        )
        for result in results
    ]
    figure = report.judged_column([result.parity for result in results])
    return out.finish(
        [to_json(result) for result in results],
        ok=all(result.parity.ok for result in results),
        skipped=skipped,
        columns=("artifact", "size", "made in s", "proven in s", figure, "tolerance", "verdict"),
        rows=rows,
    )
