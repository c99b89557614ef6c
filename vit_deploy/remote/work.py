"""Commands of the runner on a device, which give the records of the commands of their names."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.options.commands import BenchOptions, EvaluateOptions, PredictOptions, ProofOptions
from vit_deploy.core.registry import no_engine
from vit_deploy.errors import UsageError
from vit_deploy.remote.arguments import options_from
from vit_deploy.remote.unpacked import HOME, IMAGES, listing, packed
from vit_deploy.runtimes import RUNTIMES, installed_takers

if TYPE_CHECKING:
    from vit_deploy.core.artifact import Artifact
    from vit_deploy.remote.pixels import Sent
    from vit_deploy.verification import accuracy
    from vit_deploy.verification.golden import Golden

Records = list[dict[str, Any]]
SENT = "sent"  # in a request: whether images came with the artifacts


@dataclass(frozen=True)
class Command:
    """A command of the runner.

    Args:
        options: dataclass of its options.
        help: what it does.
        run: gives its records, and whether its check passed.
        arguments: adds what it takes beside options.
    """

    options: type
    help: str
    run: Callable[[argparse.Namespace], tuple[Records, bool]]
    arguments: Callable[[argparse.ArgumentParser], object] = lambda parser: None


def verify(given: argparse.Namespace) -> tuple[Records, bool]:
    """Compare all artifacts with their recorded outputs."""
    from vit_deploy.verification import checks, verifying
    from vit_deploy.verification.records import verification
    from vit_deploy.verification.tolerances import Limits

    options = options_from(given, ProofOptions)
    artifacts = packed()
    require(options.runtime or installed_takers(artifact.format, options.provider)[0] for artifact, _ in artifacts)
    found = [
        verifying.verify(
            artifact.taken_for(options.signature),
            golden=_golden(artifact, options.signature),
            runtime=options.runtime,
            provider=options.provider,
            limits=Limits(**given.request.get("limits", {})),
            checks=checks.checks_for(options),
            device=options.device,
            cuda_graph=options.cuda_graph,
        )
        for artifact, _ in artifacts
    ]
    records = [
        {**verification(verified), "artifact": path} for verified, (_, path) in zip(found, artifacts, strict=True)
    ]
    return records, all(verified.ok for verified in found)


def _golden(artifact: Artifact, signature: str | None) -> Golden:
    """The golden data of an artifact, or of one of its signatures alone."""
    from vit_deploy.verification.golden import read_golden

    golden = read_golden(artifact.taken_for(signature), inside=False)
    return golden if signature is None else dataclasses.replace(golden, sizes=())


def bench(given: argparse.Namespace) -> tuple[Records, bool]:
    """Time all artifacts side by side."""
    from vit_deploy.performance.latency import to_json
    from vit_deploy.performance.requests import cases_for, measure, profiles

    options = options_from(given, BenchOptions)
    names = dict(listing())
    cases = cases_for(options, [(artifact.directory, artifact.format) for artifact, _ in packed()])
    require(case.runtime for case in cases)
    results = measure(options, cases)
    records = [{**to_json(result, results[0]), "artifact": names[result.case.artifact]} for result in results]
    if options.profile:
        records = [found.added_to(record) for found, record in zip(profiles(results), records, strict=True)]
    return records, True


def predict(given: argparse.Namespace) -> tuple[Records, bool]:
    """Classify images: those that came with the artifacts, or files that are there."""
    from vit_deploy.runtimes import classify

    options = options_from(given, PredictOptions)
    artifacts = packed()
    require(options.runtime or installed_takers(artifact.format, options.provider)[0] for artifact, _ in artifacts)
    sent = _sent() if given.request.get(SENT) else None
    if sent is None and not given.images:
        raise UsageError("there are no images", fix="give files or folders of images")
    records: Records = []
    for index, (artifact, path) in enumerate(artifacts):
        with classify.open_classifier(
            artifact.directory,
            options.runtime,
            options.engine,
            signature=options.signature,
            image_size=options.image_size,
        ) as classifier:
            if sent is None:
                files = classify.image_files(given.images)
                found = [prediction.to_dict() for prediction in classify.predict(classifier, files, count=options.top)]
            else:
                seen = classify.predict_pixels(classifier, sent.pixels(index), count=options.top)
                found = [classify.Prediction(Path(str(place)), top).to_dict() for place, top in enumerate(seen)]
        records += [{**record, "artifact": path} for record in found]
    return records, not any(record["failures"] for record in records)


def evaluate(given: argparse.Namespace) -> tuple[Records, bool]:
    """Run all artifacts over labelled images: those that came with them, or a data set that is there."""
    from vit_deploy.verification import accuracy

    options = options_from(given, EvaluateOptions)
    names = dict(listing())
    artifacts = [artifact.taken_for(image_size=options.image_size) for artifact, _ in packed()]
    require(options.runtime or installed_takers(artifact.format, options.provider)[0] for artifact in artifacts)
    dataset: accuracy.LabelledImages
    if given.request.get(SENT):
        from vit_deploy.remote.pixels import SentDataset

        dataset = SentDataset(_sent(), artifacts)
    elif given.data is not None:
        from vit_deploy.core.datasets import read_dataset

        dataset = read_dataset(given.data)
    else:
        raise UsageError("there are no images", fix="give --data, a folder of class folders or an .npz")
    found = accuracy.evaluate(artifacts, dataset, batch=options.batch, runtime=options.runtime, options=options.engine)
    records = [
        {
            **accuracy.to_json(result),
            "artifact": names[result.artifact.directory],
            "reference": names[result.reference.directory],
        }
        for result in found
    ]
    return records, all(result.finite for result in found)


def _sent() -> Sent:
    from vit_deploy.remote.pixels import read_sent

    return read_sent(HOME / IMAGES)


def require(runtimes: Iterable[str]) -> None:
    """Refuse work for engines that are not installed for this Python; all of them are named.

    Raises:
        MissingEngineError: such engines.
    """
    if missing := sorted({name for runtime in runtimes for name in RUNTIMES[runtime].missing()}):
        raise no_engine(sys.executable, missing)


def _take_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", type=Path, help="image files, or folders of them")


def _take_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, help="a folder of class folders, or an .npz of uint8 images and labels")


COMMANDS: Mapping[str, Command] = {
    "verify": Command(ProofOptions, "compare with the recorded answers", verify),
    "bench": Command(BenchOptions, "time side by side", bench),
    "predict": Command(PredictOptions, "classify image files; needs Pillow", predict, _take_images),
    "evaluate": Command(EvaluateOptions, "run over labelled images", evaluate, _take_data),
}
