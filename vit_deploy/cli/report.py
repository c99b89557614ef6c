"""`vit-deploy report`: a page, a Markdown file or a table of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option


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
        tuple[Path, ...],
        Option(names=("--output", "-o"), metavar="FILE.html|.md|.csv", help="What to write; repeat for more."),
    ],
    title: Annotated[str, Option(metavar="TEXT", help="Of the page.")] = "Latency of Vision Transformers",
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Show what was measured: latency against size and accuracy, percentiles, scaling, operators, hosts."""
    from vit_deploy.api import reports as api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    out = Output("report", printing)
    with out.progress() as progress:
        found = api.report(files, output, title=title, force=force, progress=progress)
    rows = [(record["path"], megabytes(record["bytes"]), str(record["cases"])) for record in found.records]
    return out.show(found, columns=ranked((paths("file"), "size", "cases"), ["size", "cases"]), rows=rows)
