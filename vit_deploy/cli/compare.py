"""`vit-deploy compare`: differences of two artifacts or checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.columns import prose
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.verification.compare import Comparison

SHOWN = 10  # weights in the table; all are in the document

Model = Annotated[
    Path, typer.Argument(metavar="ARTIFACT|CHECKPOINT", help="An artifact or a checkpoint.", show_default=False)
]


@command
def compare(
    a: Model,
    b: Model,
    *,
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Compare config, preprocessing, operators, weights by name and outputs; exit 1 where anything differs."""
    from vit_deploy.api import proof as api
    from vit_deploy.cli.output import Output

    out = Output("compare", printing)
    with out.progress() as progress:
        outcome = api.compare(a, b, reading=reading, progress=progress)
    out.tell_assumed(outcome, named=True)
    for note in outcome.result.notes:
        out.note(note)
    return out.show(outcome, columns=("what", "name", prose(str(a)), prose(str(b))), rows=_rows(outcome.result))


def _rows(found: Comparison) -> list[tuple[str, str, str, str]]:
    from vit_deploy.verification import records
    from vit_deploy.verification.compare import ONLY_IN_FIRST, ONLY_IN_SECOND

    rows = [
        (difference.aspect, difference.name, _shown(difference.first), _shown(difference.second))
        for difference in found.differences
    ]
    there = {ONLY_IN_FIRST: ("yes", "-"), ONLY_IN_SECOND: ("-", "yes")}
    for weight in found.weights[:SHOWN]:
        apart = "" if weight.max_abs is None else f"{weight.max_abs:.1e} apart"
        rows.append(("weight", weight.name, *there.get(weight.words, (apart, weight.words))))
    if len(found.weights) > SHOWN:
        rows.append(("weight", f"and {len(found.weights) - SHOWN} more", "", ""))
    if found.outputs is not None:
        figure, limit = records.figure_and_limit(found.outputs)
        rows.append(("outputs", found.outputs.verdict, f"{figure} apart", f"tolerance {limit}"))
    for one in found.sizes:
        figure, limit = records.figure_and_limit(one.parity)
        rows.append((f"outputs at {one.size}", one.parity.verdict, f"{figure} apart", f"tolerance {limit}"))
    if found.same:
        count = "" if found.weights_compared is None else f"{found.weights_compared} weights"
        rows.append(("verdict", "same", count, ""))
    # A file can say anything; to a terminal it may not.
    return [(_printable(what), _printable(name), _printable(one), _printable(other)) for what, name, one, other in rows]


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
