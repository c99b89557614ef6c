"""The measurements in the documents that a report is made of, and which belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from vit_deploy.core.host import Host
from vit_deploy.errors import DataError
from vit_deploy.performance.confidence import Interval, fraction_interval, unpaired_interval
from vit_deploy.performance.latency import Latency
from vit_deploy.performance.profilers import OperatorTime
from vit_deploy.performance.saved_results import damaged, latency_in, number, read_document, text

COMMANDS = ("bench", "evaluate", "verify", "export", "quantize")
AGAIN = "give what vit-deploy bench --save, and evaluate, verify, export or quantize with --json have written"
SAME_MACHINE = ("cpu", "architecture", "cores", "memory_mb", "os", "python")


@dataclass(frozen=True)
class Quality:
    """What other commands found out about an artifact; None for what none of them did.

    Args:
        artifact: its path, as it was given to them.
        precision: the precision of its weights.
        bytes: the size of the model files.
        top1: fraction of the images that it gets right.
        top5: fraction whose class is among its five best.
        agreement: fraction on which it is of one mind with the fp32 artifact.
        images: that these fractions are of.
        max_abs: largest difference from the reference.
        cosine: between its outputs and those of the reference.
        snr_db: the signal-to-noise ratio of its outputs, in decibels; None for exact equality too.
        verdict: the verdict of the parity check.
    """

    artifact: str
    precision: str | None = None
    bytes: float | None = None
    top1: float | None = None
    top5: float | None = None
    agreement: float | None = None
    images: float | None = None
    max_abs: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    verdict: str | None = None

    @property
    def top1_interval(self) -> Interval | None:
        """Where the accuracy on all images of this kind lies; None where the number of images is not known."""
        if self.top1 is None or not self.images or not 0 <= self.top1 <= 1:
            return None
        return fraction_interval(self.top1, int(self.images))


@dataclass(frozen=True)
class Timed:
    """One case of a benchmark with all that is known of its artifact.

    Args:
        latency: the latency as it was measured.
        machine: the name of the one it was measured on.
        ratio: the ratio of its median to that of the first case on the same machine.
        ratio_interval: the interval of the ratio; None for the first itself, and for too few calls.
        profile: time of each operator; empty where none was taken.
        quality: the quality of the artifact.
        file: that it was read from.
    """

    latency: Latency
    machine: str
    ratio: float
    ratio_interval: Interval | None
    profile: tuple[OperatorTime, ...]
    quality: Quality
    file: Path

    @property
    def bytes(self) -> float | None:
        """The size of the model files, in bytes."""
        return self.quality.bytes if self.latency.bytes is None else self.latency.bytes


@dataclass(frozen=True)
class Gathered:
    """All that a report tells.

    Args:
        cases: the measured cases, in the order of the files.
        machines: the machines, by the names that the cases have for them.
        untimed: artifacts that other commands have looked at and none has timed.
    """

    cases: tuple[Timed, ...]
    machines: Mapping[str, Host]
    untimed: tuple[Quality, ...] = ()


def gather(paths: Sequence[Path]) -> Gathered:
    """Read documents and join what they say by the path of the artifact.

    Args:
        paths: the paths of documents with one of `COMMANDS` each; later ones win.

    Raises:
        DataError: a file that is none, is damaged, not one in which something was timed, or one of times of an
            emulator.
    """
    documents = [(path, read_document(path, COMMANDS, fix=AGAIN)) for path in paths]
    qualities = _qualities(documents)
    timings = [
        (path, result)
        for path, document in documents
        if document["command"] == "bench"
        for result in document["results"]
    ]
    if not timings:
        raise DataError(f"nothing was timed in {', '.join(map(str, paths))}", fix=AGAIN)
    measured = [(path, latency_in(path, record), _profile(path, record)) for path, record in timings]
    if emulated := sorted({str(path) for path, latency, _ in measured if latency.emulated}):
        raise DataError(
            f"{', '.join(emulated)} has times of an emulator, which a report would compare with real ones",
            fix="report what real machines measured",
        )
    names = _machine_names(latency for _, latency, _ in measured)
    first: dict[str, tuple[Path, Latency]] = {}
    cases = []
    for path, latency, profile in measured:
        machine = names[_identity(latency)]
        origin, base = first.setdefault(machine, (path, latency))
        # Only cases of one run took turns.
        interval = latency.ratio_to(base)[1] if origin == path else unpaired_interval(latency.rounds, base.rounds)
        quality = _joined(str(latency.case.artifact), qualities)
        ratio = latency.p50_ms / base.p50_ms
        cases.append(Timed(latency, machine, ratio, None if latency is base else interval, profile, quality, path))
    timed = {case.quality.artifact for case in cases}
    untimed = tuple(quality for quality in qualities.values() if quality.artifact not in timed)
    return Gathered(tuple(cases), {case.machine: case.latency.host for case in reversed(cases)}, untimed)


def _qualities(documents: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Quality]:
    found: dict[str, Quality] = {}
    for path, document in documents:
        named = "path" if document["command"] in ("export", "quantize") else "artifact"
        for record in document["results"] if document["command"] != "bench" else ():
            if record.get(named) is not None:  # null where an export was not published
                name = text(path, record[named])
                found[name] = replace(found.get(name, Quality(name)), **_findings(path, record))
    return found


def _findings(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Quality` that a record of any command but `bench` says something about."""
    parity = record.get("parity", record)
    if not isinstance(parity, dict):
        raise damaged(path, "parity is no record")
    metrics = parity.get("metrics", {})
    if not isinstance(metrics, dict):
        raise damaged(path, "metrics is no record")
    words = {name: values[name] for name, values in (("precision", record), ("verdict", parity)) if name in values}
    figures = {name: record[name] for name in ("bytes", "top1", "top5", "agreement", "images") if name in record}
    figures |= {name: metrics[name] for name in ("max_abs", "cosine", "snr_db") if name in metrics}
    return {name: text(path, value) for name, value in words.items() if value is not None} | {
        name: number(path, name, value) for name, value in figures.items()
    }


def _profile(path: Path, record: Mapping[str, Any]) -> tuple[OperatorTime, ...]:
    rows = record.get("profile") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise damaged(path, "profile is no list of records")
    found = []
    for row in rows:
        calls, ms, share = (number(path, name, row.get(name)) for name in ("calls", "ms", "share"))
        if calls is None or ms is None or share is None or ms < 0:
            raise damaged(path, "an operator in profile has no time")
        found.append(OperatorTime(text(path, row.get("operator")), calls, ms, share))
    return tuple(found)


def _identity(latency: Latency) -> tuple[object, ...]:
    return (latency.on, *(str(getattr(latency.host, name)) for name in SAME_MACHINE))


def _machine_names(seen: Iterable[Latency]) -> dict[tuple[object, ...], str]:
    names: dict[tuple[object, ...], str] = {}
    for latency in seen:
        plain = latency.on or str(latency.host.cpu)
        alike = sum(name == plain or name.startswith(f"{plain} (") for name in names.values())
        names.setdefault(_identity(latency), f"{plain} ({alike + 1})" if alike else plain)
    return names


def _joined(artifact: str, qualities: Mapping[str, Quality]) -> Quality:
    """What is known of an artifact by its path, else by the last two names of it if no other has them."""
    if artifact in qualities:
        return qualities[artifact]
    tail = PurePath(artifact).parts[-2:]
    named = [quality for quality in qualities.values() if PurePath(quality.artifact).parts[-2:] == tail]
    return named[0] if len(named) == 1 else Quality(artifact)
