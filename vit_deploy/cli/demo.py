"""`vit-deploy demo`: a page that runs models in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option


@command
def demo(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT…", help="ONNX and TFLite artifacts, or folders of them.", show_default=False),
    ],
    output: Annotated[
        Path,
        Option(
            names=("--output", "-o"),
            metavar="FILE.html|DIR",
            help="One file that holds everything, or a folder to serve.",
        ),
    ],
    title: Annotated[str | None, Option(metavar="TEXT", help="Heading.", show_default="the model's name")] = None,
    runtime_files: Annotated[
        Path | None,
        Option(metavar="DIR", help="node_modules with the engine.", show_default="VIT_DEPLOY_WEB of the environment"),
    ] = None,
    embed_mb: Annotated[int, Option(min=1, help="MB that one file may hold.")] = 200,
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Make a page that runs models in a browser, proves each there, and shows the classes of pictures."""
    from vit_deploy.api import pages as api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    out = Output("demo", printing)
    with out.progress() as progress:
        made = api.demo(
            artifacts,
            output,
            title=title,
            runtime_files=runtime_files,
            embed_mb=embed_mb,
            force=force,
            progress=progress,
        )
    page = made.result
    for gap in made.failed:
        out.finding(f"{gap.name} is not in the page: {gap.error}")
    for name, package in page.without_notices.items():
        out.note(f"the notices of what {name} is made of are named and not held: with {package} installed they are")
    if page.needs_server:
        out.note(f"browsers read a folder from a server alone: python -m http.server --directory {page.path}")
    rows = [(str(page.path), megabytes(page.bytes), str(len(page.artifacts)))]
    return out.show(made, columns=ranked((paths("page"), "size", "models"), ["size", "models"]), rows=rows)
