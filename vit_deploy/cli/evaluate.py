"""The command `vit-deploy evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vit_deploy.cli.columns import paths, prose, ranked
from vit_deploy.cli.options import Artifacts, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, EvaluateOptions, Option
from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.remote.options import HostOptions

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.api.results import EvaluateOutcome
    from vit_deploy.cli.output import Cell, Output
    from vit_deploy.verification.accuracy import Evaluation
    from vit_deploy.verification.feature_accuracy import FeatureEvaluation

MOST_BROKEN = 20  # images that are named
MOST_CONFUSIONS = 10  # beside the table; all that are counted are in the document


@command
def evaluate(
    artifacts: Artifacts,
    data: Annotated[
        tuple[str, ...],
        Option(
            metavar="DIR|FILE.npz",
            help="A folder of a folder for each class, uint8 images and labels, or what embed takes; repeat for more.",
        ),
    ],
    against: Annotated[
        Path | None,
        Option(
            metavar="CHECKPOINT|ARTIFACT",
            help="A model whose answers to the same images are compared with too.",
            show_default="none",
        ),
    ] = None,
    train: Annotated[
        tuple[str, ...] | None,
        Option(
            metavar="DIR|FILE.npz",
            help="Labelled images by which the features of models without a head tell the classes.",
            show_default="all other images of --data",
        ),
    ] = None,
    *,
    running: EvaluateOptions,
    streaming: StreamOptions,
    reading: CheckpointOptions,
    hosts: HostOptions,
    printing: OutputOptions,
) -> int:
    """Run artifacts over labelled images, in one pass: top-1, top-5, agreement with fp32, and what is confused."""
    from vit_deploy.api import evaluating as api
    from vit_deploy.cli.output import Output

    out = Output("evaluate", printing)
    with out.progress() as progress:
        options = {**vars(running), **vars(streaming), **vars(hosts)}
        found = api.evaluate(
            artifacts, data, against=against, train=train, reading=reading, **options, progress=progress, note=out.note
        )
    if features := _features(found):
        return _show_features(out, found, features)
    _tell(out, found)
    machine = ["machine"] if hosts.elsewhere else []
    agreement = f"as {found[0].reference.name}"
    other = ["same top-1", "same top-5", "mean KL"] if against is not None else []
    columns = ranked(
        (*machine, paths("artifact"), prose("runtime"), "images", "top-1", "top-5", agreement, *other),
        [*other[:1], agreement, *other[1:], "images", "top-5", "runtime"],
    )
    code = out.show(found, columns=columns, rows=[_row(result) for result in _counted(found)])
    _tell_confusions(out, found)
    return code


def _features(found: EvaluateOutcome) -> list[FeatureEvaluation]:
    from vit_deploy.verification.feature_accuracy import FeatureEvaluation

    return [result for result in found if isinstance(result, FeatureEvaluation)]


def _counted(found: EvaluateOutcome) -> list[Evaluation]:
    from vit_deploy.verification.accuracy import Evaluation

    return [result for result in found if isinstance(result, Evaluation)]


def _show_features(out: Output, found: EvaluateOutcome, results: list[FeatureEvaluation]) -> int:
    """The table of models without a head, and what it has no room for."""
    out.tell_assumed(found, named=True)
    for gap in found.failed:
        out.finding(f"{gap.name} was not run: {gap.error}")
    first = results[0]
    by = "all others of them" if first.train is None else f"{first.train} training images"
    out.note(f"{first.images} images, told by {by}: by their 20 nearest neighbours and by a linear probe")
    for result in results:
        for reason in result.failures:
            (out.note if result.finite and not result.broken else out.finding)(f"{result.artifact.path}: {reason}")
    agreement = f"as {first.reference.name}"
    columns = ranked(
        (paths("artifact"), prose("runtime"), "features", "k-NN", "probe", agreement, "same neighbours"),
        [agreement, "same neighbours", "features", "runtime"],
    )
    return out.show(found, columns=columns, rows=[_feature_row(result) for result in results])


def _feature_row(result: FeatureEvaluation) -> tuple[Cell, ...]:
    def share(value: float, interval: tuple[float, float]) -> str:
        return f"{value:.1%} ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"

    return (
        str(result.artifact.path),
        f"{result.runtime} ({result.provider})",
        result.output,
        share(result.knn, result.knn_interval),
        share(result.linear_probe, result.linear_probe_interval),
        "-" if result.agreement is None else f"{result.agreement:.2%}",
        "-" if result.shared_neighbours is None else f"{result.shared_neighbours:.2%}",
    )


def _tell(out: Output, found: EvaluateOutcome) -> None:
    """What the table has no room for: which folder is which class, and what is wrong."""
    from vit_deploy.verification.accuracy import ALONE, FP32

    results = _counted(found)
    for mapping in dict.fromkeys(filter(None, (found.dataset.describe_mapping(result.artifact) for result in results))):
        out.note(mapping)
    out.tell_assumed(found, named=True)
    for error in found.unanswered.values():
        out.finding(str(error))
    for gap in found.failed:
        out.finding(f"{gap.name} was not run: {gap.error}")
    reference = results[0].reference
    if len(found) > 1 and reference.precision != FP32:
        out.note(f"none of them is {FP32}: agreement is with {reference.path}")
    for result in results:
        for reason in result.failures:
            if reason != ALONE or result.against is None:
                (out.note if result.finite else out.finding)(f"{result.artifact.path}: {reason}")
    for failure in results[0].broken[:MOST_BROKEN]:
        out.finding(f"broken: {failure}")
    if (other := results[0].against) is not None:
        out.note(f"compared with {other.model} in {other.runtime}, whose own top-1 is {other.right:.2%}")
        for reason in other.failures:
            out.finding(reason)


def _tell_confusions(out: Output, found: EvaluateOutcome) -> None:
    """The most frequent ones of all artifacts together."""
    confused = [(result.artifact.path, confusion) for result in _counted(found) for confusion in result.confusions]
    confused.sort(key=lambda item: -item[1].count)
    for path, worst in confused[:MOST_CONFUSIONS]:
        out.note(f"{path}: {worst.count} of class {worst.actual} taken for {worst.predicted}")
    if len(confused) > MOST_CONFUSIONS:
        out.note(f"and {len(confused) - MOST_CONFUSIONS} rarer confusions, which --json has")


def _row(result: Evaluation) -> tuple[Cell, ...]:
    return (
        *([result.on] if result.on is not None else []),
        str(result.artifact.path),
        f"{result.runtime} ({result.provider})",
        result.images,
        f"{result.top1:.2%}",
        f"{result.top5:.2%}",
        "-" if result.agreement is None else f"{result.agreement:.2%}",
        *_other(result),
    )


def _other(result: Evaluation) -> tuple[Cell, ...]:
    """Agreement with the model of `--against`."""
    if (other := result.against) is None:
        return ()
    return f"{other.top1:.2%}", f"{other.top5:.2%}", "-" if other.kl is None else f"{other.kl:.1e}"
