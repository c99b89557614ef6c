"""The command `vit-deploy evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Artifacts, OutputOptions, Runtime
from vit_deploy.cli.signature import Without, command
from vit_deploy.core.options import RuntimeOptions


@command
def evaluate(
    artifacts: Artifacts,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR|FILE.npz",
            help="A folder with a folder of images for each class, or uint8 images and labels.",
            show_default=False,
        ),
    ],
    batch: Annotated[int, typer.Option(min=1, help="Images a call, where a file takes any number.")] = 32,
    runtime: Runtime = None,
    *,
    running: Annotated[RuntimeOptions, Without("cuda_graph")],
    printing: OutputOptions,
) -> int:
    """Run artifacts over labelled images, in one pass: top-1, top-5, agreement with fp32, and what is confused."""
    from vit_deploy.cli.output import Output
    from vit_deploy.core.artifact_folders import each_bundle
    from vit_deploy.core.datasets import read_dataset
    from vit_deploy.runtimes.choosing import with_engines
    from vit_deploy.verification.accuracy import FP32, to_json
    from vit_deploy.verification.accuracy import evaluate as run
    from vit_deploy.verification.targets import open_artifact

    out = Output("evaluate", printing)
    with out.progress() as progress:
        progress("reading the bundles")
        opened, failed = with_engines(list(map(open_artifact, each_bundle(artifacts))), runtime, running)
        dataset = read_dataset(data)
        results = run(opened, dataset, batch=batch, runtime=runtime, options=running, progress=progress)
    for mapping in dict.fromkeys(filter(None, map(dataset.told, opened))):
        out.note(mapping)
    for artifact in opened:
        if artifact.is_checkpoint:
            out.assumed(artifact.path, artifact.provenance, named=True)
    for gap in failed:
        out.finding(f"{gap.name} was not run: {gap.error}")
    reference = results[0].reference
    if len(results) > 1 and reference.precision != FP32:
        out.note(f"none of them is {FP32}: agreement is with {reference.path}")
    for result in results:
        for reason in result.failures:
            (out.note if result.finite else out.finding)(f"{result.artifact.path}: {reason}")
        for worst in result.confusions:
            out.note(f"{result.artifact.path}: {worst.count} of class {worst.actual} taken for {worst.predicted}")
    rows = [
        (
            str(result.artifact.path),
            f"{result.runtime} ({result.provider})",
            result.images,
            f"{result.top1:.2%}",
            f"{result.top5:.2%}",
            "-" if result.agreement is None else f"{result.agreement:.2%}",
        )
        for result in results
    ]
    return out.finish(
        [to_json(result) | dataset.to_dict(result.artifact) for result in results],
        ok=all(result.finite for result in results),
        failed=failed,
        columns=("artifact", "runtime", "images", "top-1", "top-5", f"as {reference.name}"),
        rows=rows,
    )
