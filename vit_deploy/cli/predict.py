"""The command `vit-deploy predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.columns import paths, prose, ranked
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, PredictOptions
from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.remote.options import HostOptions

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.runtimes.classify import Prediction


@command
def predict(
    model: Annotated[Path, typer.Argument(metavar="ARTIFACT|CHECKPOINT", help="What classifies.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE…", help="Image files, folders of them, or what embed's --data takes.", show_default=False
        ),
    ],
    *,
    running: PredictOptions,
    streaming: StreamOptions,
    reading: CheckpointOptions,
    hosts: HostOptions,
    printing: OutputOptions,
) -> int:
    """Classify image files through the recorded preprocessing; every format gives the same answer."""
    from vit_deploy.api import predicting as api
    from vit_deploy.cli.output import Output

    out = Output("predict", printing)
    options = {**vars(running), **vars(streaming), **vars(hosts)}
    with out.progress() as progress:
        found = api.predict(model, images, **options, reading=reading, progress=progress, note=out.note)
    out.tell_assumed(found)
    for error in found.unanswered.values():
        out.finding(str(error))
    for prediction in found:
        if prediction.failure:
            out.finding(f"skipped: {prediction.failure}")
    machine = ["machine"] if hosts.elsewhere else []
    columns = ranked((*machine, paths("image"), "class", prose("label"), "probability"), ["class"])
    return out.show(found, columns=columns, rows=[row for prediction in found for row in _rows(prediction)])


def _rows(prediction: Prediction) -> list[tuple[str, ...]]:
    machine = [prediction.on] if prediction.on is not None else []
    return [
        (
            *(machine if not rank else [""] * len(machine)),
            *(str(prediction.image) if not rank else "", str(seen.index), seen.label or "-", f"{seen.probability:.2%}"),
        )
        for rank, seen in enumerate(prediction.top)
    ]
