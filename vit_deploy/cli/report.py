"""`vit-deploy report`: a page, a Markdown file or a table of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command


@command
def report(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE.json…",
            help="From bench --save, and from evaluate, verify, export or quantize with --json for the same artifacts.",
            show_default=False,
        ),
    ],
    output: Annotated[
        list[Path],
        typer.Option(
            "--output", "-o", metavar="FILE.html|.md|.csv", help="What to write; repeat for more.", show_default=False
        ),
    ],
    title: Annotated[str, typer.Option(help="Of the page.")] = "Latency of Vision Transformers",
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Show what was measured: latency against size and accuracy, percentiles, scaling, operators, hosts."""
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes
    from vit_deploy.core.staging import check_targets, staged_file
    from vit_deploy.performance.report import WRITERS, written
    from vit_deploy.performance.report.documents import gather

    for path in output:
        if path.suffix not in WRITERS:
            raise typer.BadParameter(f"--output is {path.name!r}; expected a name that ends in {', '.join(WRITERS)}")
        WRITERS.check(path.suffix)
    check_targets(output, force=force)
    out = Output("report", printing)
    with out.progress() as progress:
        progress("reading the results")
        gathered = gather(files)
        texts = {}
        for path in output:
            progress(f"making {path}")
            texts[path] = written(gathered, title, path.suffix)
    for path, text in texts.items():
        with staged_file(path, force=force) as staged:
            staged.write_text(text, encoding="utf-8")
    sizes = [(str(path), path.stat().st_size) for path in texts]
    return out.finish(
        [{"path": path, "bytes": size, "cases": len(gathered.cases)} for path, size in sizes],
        ok=True,
        columns=("file", "size", "cases"),
        rows=[(path, megabytes(size), str(len(gathered.cases))) for path, size in sizes],
    )
