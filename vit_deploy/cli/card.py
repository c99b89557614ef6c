"""`vit-deploy card`: a model card of artifacts, and their way to a hub."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option

if TYPE_CHECKING:  # at run time it would be imported for every `--help`
    from vit_deploy.checkpoints.hub.publishing import Upload
    from vit_deploy.cli.output import Output

DOCUMENT, MANIFEST = ".json", "artifact.json"


@command
def card(
    artifacts: Annotated[
        list[Path],
        typer.Argument(metavar="ARTIFACT…", help="Artifacts, or folders of them.", show_default=False),
    ],
    output: Annotated[
        Path | None, Option(names=("--output", "-o"), metavar="README.md", help="The card to write.")
    ] = None,
    results: Annotated[
        tuple[Path, ...],
        Option(
            metavar="FILE.json…",
            help="What bench --save, and verify, evaluate, export or quantize with --json have written.",
        ),
    ] = (),
    title: Annotated[str | None, Option(metavar="TEXT", help="Heading.", show_default="the model's name")] = None,
    push: Annotated[
        str | None, Option(metavar="OWNER/NAME", help="A repository of the hub that card and artifacts go to.")
    ] = None,
    private: Annotated[bool, Option(help="Make that repository private.")] = False,
    yes: Annotated[bool, Option(help="Push without asking.")] = False,
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Make a model card in the hub's form of what artifacts record and what was measured; push both if asked to."""
    from vit_deploy.api import cards as api
    from vit_deploy.cli.output import Output
    from vit_deploy.errors import UsageError

    if push is not None and not yes and not sys.stdin.isatty():
        raise UsageError("--push asks before anything goes, and there is nobody to ask", fix="add --yes")
    # `--results a.json b.json`: an option takes one value, and what follows it are arguments.
    listed = [artifact for artifact in artifacts if artifact.suffix == DOCUMENT and artifact.name != MANIFEST]
    given = [artifact for artifact in artifacts if artifact not in listed]
    if not given:
        raise UsageError("no artifact is given; expected folders that export has written")
    out = Output("card", printing)
    asking = push is not None and not yes
    # A spinner would be drawn over the question.
    with contextlib.nullcontext(out.note) if asking else out.progress() as progress:
        made = api.card(
            given,
            output,
            results=[*(results or ()), *listed],
            title=title,
            push=push,
            private=private,
            confirm=lambda upload: _shown(upload, out, ask=asking),
            force=force,
            progress=progress,
        )
    for note in made.notes:
        out.note(note)
    written = made.result
    rows = [(str(written.path), str(len(made.records[0]["artifacts"])))] if written.path is not None else []
    rows += [(written.commit, str(len(made.records[0]["artifacts"])))] if written.commit else []
    if written.upload is not None and not written.commit:
        out.finding("nothing was uploaded")
    return out.show(made, columns=ranked((paths("card"), "artifacts"), ["artifacts"]), rows=rows)


def _shown(upload: Upload, out: Output, *, ask: bool) -> bool:
    """Say what goes, and ask whether it may."""
    from vit_deploy.core.quantities import megabytes

    made = "a private repository that is made" if upload.private else "a repository that is made, for everyone to read"
    there = "a repository that is there" if upload.exists else made
    lines = [f"to {upload.page}, {there}:"]
    for name, size in upload.sizes.items():
        lines.append(f"  {name}  {megabytes(size)}{'  replaces what is there' if name in upload.replaced else ''}")
    for line in lines:
        (out.finding if ask else out.note)(line)
    return not ask or typer.confirm("Upload these files?", err=True)
