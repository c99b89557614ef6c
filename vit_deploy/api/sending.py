"""Images sent to other machines, and what artifacts answer there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.api.given import Tell, as_tuple
from vit_deploy.api.results import EvaluateOutcome, PredictOutcome
from vit_deploy.core.artifact_folders import is_bundle
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options import EvaluateOptions, PredictOptions
from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.data.finding import is_stream
from vit_deploy.errors import DataError, UsageError
from vit_deploy.remote.hosts import ask_hosts
from vit_deploy.remote.options import HostOptions
from vit_deploy.remote.sending import write_dataset, write_files
from vit_deploy.remote.work import SENT
from vit_deploy.runtimes import classify
from vit_deploy.verification import accuracy


def refuse_streams(texts: Sequence[str], streaming: StreamOptions) -> None:
    """Refuse what is for images that stay here.

    Raises:
        UsageError: such options or sources.
    """
    if streaming != StreamOptions():
        raise UsageError(
            "--workers, --column and --ray are about images that are not sent to another machine", fix="leave them out"
        )
    if other := [text for text in texts if is_stream(text) and not text.endswith(".npz")]:
        raise UsageError(f"--on sends image files, and {', '.join(other)} is something else", fix="run it here")


def check_artifacts(paths: Sequence[Path]) -> None:
    """Refuse what is no artifact, for only those are sent.

    Raises:
        UsageError: such paths; all are named.
    """
    if others := [str(path) for path in paths if not is_bundle(path)]:
        raise UsageError(f"--on sends artifacts, and {', '.join(others)} is none", fix="export it first")


def predict_elsewhere(
    given: Path, files: Sequence[Path], options: PredictOptions, hosts: HostOptions, progress: Tell, note: Tell
) -> PredictOutcome:
    """The likeliest classes of each image on each machine, or why it could not be read.

    Raises:
        DataError: not one image can be read.
        RemoteError: no machine answered.
    """
    artifact = read_artifact(given).taken_for(options.signature, options.image_size)
    with tempfile.TemporaryDirectory() as folder:
        progress("reading the images")
        failures = write_files(Path(folder), artifact, files)
        if all(file in failures for file in files):
            raise DataError("; ".join(failures.values()), fix="give images that can be read")
        answers = ask_hosts(
            [given],
            "predict",
            options,
            hosts,
            more={SENT: True},
            images=Path(folder),
            runtimes=as_tuple(options.runtime),
            providers=as_tuple(options.provider),
            progress=progress,
            note=note,
        )
    found = []
    for answer in answers:
        seen = map(classify.seen_in, answer.records)
        for file in files if answer.error is None else ():
            top = () if file in failures else next(seen)
            found.append(classify.Prediction(file, top, failures.get(file, ""), answer.host))
    unanswered = {answer.host: answer.error for answer in answers if answer.error is not None}
    return PredictOutcome(
        tuple(found),
        tuple(record.to_dict() for record in found),
        ok=not failures and not unanswered,
        skipped=tuple(answer.gap for answer in answers if answer.error is not None),
        unanswered=unanswered,
        hosts=tuple(answer.to_dict() for answer in answers) if hosts.hosts is not None else (),
    )


def evaluate_elsewhere(
    found: Sequence[Path], data: Path, options: EvaluateOptions, hosts: HostOptions, progress: Tell, note: Tell
) -> EvaluateOutcome:
    """An evaluation of each artifact on each machine.

    Raises:
        UsageError: something that is no artifact.
        DataError: classes or sizes that do not fit an artifact, or an image that cannot be read.
        RemoteError: no machine answered.
    """
    check_artifacts(found)
    artifacts = [read_artifact(path).taken_for(image_size=options.image_size) for path in found]
    dataset = read_dataset(data)
    with tempfile.TemporaryDirectory() as folder:
        progress("reading the images")
        write_dataset(Path(folder), artifacts, dataset)
        answers = ask_hosts(
            found,
            "evaluate",
            options,
            hosts,
            more={SENT: True},
            images=Path(folder),
            runtimes=as_tuple(options.runtime),
            providers=as_tuple(options.provider),
            progress=progress,
            note=note,
        )
    sent = {str(artifact.directory): artifact for artifact in artifacts}
    records = [
        {**record, **dataset.to_dict(sent[record["artifact"]])} for answer in answers for record in answer.records
    ]
    return EvaluateOutcome(
        tuple(accuracy.evaluation_in(record, sent) for record in records),
        tuple(records),
        ok=all(answer.ok for answer in answers),
        skipped=tuple(answer.gap for answer in answers if answer.error is not None),
        unanswered={answer.host: answer.error for answer in answers if answer.error is not None},
        hosts=tuple(answer.to_dict() for answer in answers) if hosts.hosts is not None else (),
        dataset=dataset,
    )
