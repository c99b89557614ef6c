"""`vit-deploy verify`: does an artifact still compute the function of its checkpoint?"""

from __future__ import annotations

from typing import Annotated

import typer

from vit_deploy.cli.options import Artifacts, Json, Quiet, Verbose


def verify(
    artifacts: Artifacts,
    runtime: Annotated[str | None, typer.Option(help="Engine to run in.", show_default="the format's own")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Run artifacts on their golden images and compare with the float64 reference."""
    from vit_deploy import report
    from vit_deploy.cli.output import Output
    from vit_deploy.parity import verify as run
    from vit_deploy.targets import open_with_golden

    out = Output("verify", as_json=json, quiet=quiet)
    with out.progress() as progress:
        progress("reading the bundles")
        opened = [open_with_golden(path) for path in artifacts]
        results = []
        for artifact, golden in opened:
            progress(f"running {artifact.model_path}")
            results.append(run(artifact, runtime=runtime, golden=golden))
    for result in results:
        for reason in result.parity.failures:
            out.note(f"{result.artifact.model_path}: {reason}")
    rows = [
        (
            str(result.artifact.model_path),
            f"{result.runtime} ({result.provider})",
            *report.judged(result.parity),
            report.shown("cosine", result.parity.cosine),
            report.shown("top1_agreement", result.parity.top1_agreement),
            result.parity.verdict if result.parity.ok else result.parity.verdict.upper(),
        )
        for result in results
    ]
    return out.finish(
        [report.verification(result) for result in results],
        ok=all(result.parity.ok for result in results),
        columns=(
            "model",
            "runtime",
            report.judged_column([each.parity for each in results]),
            "tolerance",
            "cosine",
            "top-1",
            "verdict",
        ),
        rows=rows,
    )
