"""`vit-deploy bench`: how fast does an artifact run on this machine?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import typer

from vit_deploy.cli.options import Artifacts, Json, Quiet, Verbose, parse_counts


def bench(
    artifacts: Artifacts,
    runtime: Annotated[
        list[str] | None, typer.Option(help="Engine; repeat for more.", show_default="all that can run it")
    ] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda, …; repeat for more.", show_default="the engine's own")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Images a call.")] = "1",
    threads: Annotated[
        str | None, typer.Option(metavar="N,…", help="For the work in one call.", show_default="all cores")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Of calls for each case.")] = 3.0,
    runs: Annotated[int | None, typer.Option(min=1, help="Calls for each case, instead of seconds.")] = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Time artifacts side by side, each in a process of its own: load, first run, steady state, memory."""
    from vit_deploy.bench import Case, Plan, to_json
    from vit_deploy.bench import bench as run
    from vit_deploy.cli.output import Output
    from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT
    from vit_deploy.targets import open_artifact

    out = Output("bench", as_json=json, quiet=quiet)
    for name in runtime or ():
        RUNTIMES.check(name)
    batches = parse_counts(batch, "--batch")
    counts: Sequence[int | None] = parse_counts(threads, "--threads") if threads else [None]
    executors: Sequence[str | None] = provider or [None]
    plan = Plan(seconds=None if runs else seconds, runs=runs)
    with out.progress() as progress:
        progress("reading the bundles")
        cases = [
            Case(path, name, executor, images, count)
            for path in artifacts
            for name, executor, images, count in itertools.product(
                runtime or RUNTIMES_OF_FORMAT[open_artifact(path).format], executors, batches, counts
            )
        ]
        results = run(cases, plan, lambda doing, done: progress(f"{done:4.0%} {doing}"))
    for result in results:
        for text in result.notes:
            out.note(f"{result.case}: {text}")
    rows = [
        (
            str(result.case.artifact),
            f"{result.case.runtime} ({result.provider})",
            result.case.batch,
            result.case.threads or "-",
            f"{result.p50_ms:.2f}",
            f"{result.p90_ms:.2f}",
            f"{result.p99_ms:.2f}",
            f"{result.throughput_per_s:.1f}",
            f"{result.load_ms:.0f}",
            f"{result.first_ms:.1f}",
            "-" if result.peak_rss_mb is None else f"{result.peak_rss_mb:.0f}",
        )
        for result in results
    ]
    return out.finish(
        [to_json(result) for result in results],
        ok=True,
        columns=(
            *("artifact", "runtime", "batch", "threads", "p50 ms", "p90 ms", "p99 ms", "images/s"),
            *("load ms", "first ms", "peak MB"),
        ),
        rows=rows,
    )
