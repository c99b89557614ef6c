"""The command `vit-deploy predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.options import OutputOptions, Runtime
from vit_deploy.cli.signature import Without, command
from vit_deploy.core.options import CheckpointOptions, RuntimeOptions

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.runtimes.classify import Prediction


@command
def predict(
    model: Annotated[Path, typer.Argument(metavar="ARTIFACT|CHECKPOINT", help="What classifies.", show_default=False)],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE…", help="Image files, or folders of them.", show_default=False)
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes of each image.")] = 5,
    runtime: Runtime = None,
    *,
    running: Annotated[RuntimeOptions, Without("cuda_graph")],
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Classify image files through the recorded preprocessing; every format gives the same answer."""
    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli.output import Output
    from vit_deploy.runtimes.classify import image_files, open_classifier
    from vit_deploy.runtimes.classify import predict as run

    out = Output("predict", printing)
    files = image_files(images)
    found = []
    with out.progress() as progress:
        progress(f"loading {model}")
        stated = stated_fields(reading)
        with open_classifier(model, runtime, running, stated) as classifier:
            origin = classifier.origin
            for prediction in run(classifier, files, count=top):
                found.append(prediction)
                progress(f"{len(found)} of {len(files)} images")
    if origin is not None:
        out.assumed(model, origin)
    for each in found:
        if each.failure:
            out.finding(f"skipped: {each.failure}")
    return out.finish(
        [each.to_dict() for each in found],
        ok=not any(each.failure for each in found),
        columns=("image", "class", "label", "probability"),
        rows=[row for each in found for row in _rows(each)],
    )


def _rows(prediction: Prediction) -> list[tuple[str, str, str, str]]:
    return [
        (str(prediction.image) if not rank else "", str(seen.index), seen.label or "-", f"{seen.probability:.2%}")
        for rank, seen in enumerate(prediction.top)
    ]
