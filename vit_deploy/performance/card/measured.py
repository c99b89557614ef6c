"""What documents of other commands say of single artifacts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.errors import ConfigError, DataError
from vit_deploy.performance.latency import Latency
from vit_deploy.performance.saved_results import damaged, latency_in, number, read_document, text

COMMANDS = ("bench", "evaluate", "verify", "export", "quantize")
VERIFY = "verify"
AGAIN = "give what bench --save, and verify, evaluate, export or quantize with --json have written"


@dataclass(frozen=True)
class Proof:
    """One comparison with the float64 reference.

    Args:
        command: that compared.
        where: engine and provider, and whether it was on another machine.
        verdict: in words.
        ok: whether it was within the tolerance.
        max_abs: largest difference of an output.
        tolerance: limits that it was held to, by the names of the figures.
        cosine: of the outputs and the reference.
        checks: of other inputs and batches that passed, of how many.
    """

    command: str
    where: str
    verdict: str
    ok: bool
    max_abs: float | None
    tolerance: Mapping[str, float]
    cosine: float | None
    checks: tuple[int, int] | None


@dataclass(frozen=True)
class Accuracy:
    """Answers to labelled images.

    Args:
        where: engine and provider, and whether it was on another machine.
        images: how many.
        top1: fraction that is right.
        top5: fraction with the right class among the best five.
        agreement: fraction with the same answer as the artifact `reference`.
        reference: its name; empty where there was none.
    """

    where: str
    images: int
    top1: float | None
    top5: float | None
    agreement: float | None
    reference: str


@dataclass(frozen=True)
class Subject:
    """One artifact of a card.

    Args:
        artifact: what its manifest says.
        proofs: that the documents have.
        accuracies: likewise.
        latencies: likewise.
    """

    artifact: Artifact
    proofs: tuple[Proof, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()
    latencies: tuple[Latency, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its folder, by which the card calls it."""
        return self.artifact.directory.resolve().name


def subjects_of(artifacts: Sequence[Artifact], paths: Sequence[Path]) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """What is known of artifacts, and notes on what the documents say of others.

    Args:
        artifacts: of one card.
        paths: documents of `COMMANDS`; what they say of other artifacts, or of files of another size, is left out.

    Raises:
        ConfigError: two artifacts of one name.
        DataError: a file that is no such document, or a damaged one.
    """
    found = {artifact.directory.resolve(): Subject(artifact) for artifact in artifacts}
    names = [artifact.folder for artifact in found.values()]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"several artifacts are called {', '.join(doubled)}",
            fix="give artifacts whose folders have different names",
        )
    notes: dict[str, None] = {}
    for path in paths:
        document = read_document(path, COMMANDS, fix=AGAIN)
        for record in document["results"]:
            named = record.get("path" if document["command"] in ("export", "quantize") else "artifact")
            if named is None:  # an export that was not published
                continue
            place = _place(text(path, named), path, found)
            if place is None:
                notes[f"{path.name} says something of {named}, which is not in the card"] = None
            elif _is_stale(record, found[place].artifact):
                notes[f"{path.name} measured another file than {found[place].folder} has now; it is left out"] = None
            else:
                found[place] = _with(found[place], document["command"], record, path)
    return tuple(map(_without_repeated, found.values())), tuple(notes)


def _without_repeated(subject: Subject) -> Subject:
    """Without what an export has compared, where `verify` has compared the same and more."""
    verified = tuple(proof for proof in subject.proofs if proof.command == VERIFY)
    return dataclasses.replace(subject, proofs=verified or subject.proofs)


def _place(named: str, document: Path, known: Mapping[Path, Subject]) -> Path | None:
    """The artifact that a document names, from where the command ran or from where the document lies."""
    for start in (Path(), document.parent):
        place = (start / named).resolve()
        for candidate in (place, place.parent if place.name == MANIFEST else place):
            if candidate in known:
                return candidate
    return None


def _is_stale(record: Mapping[str, Any], artifact: Artifact) -> bool:
    size = record.get("bytes")
    return size is not None and size != artifact.model_bytes


def _with(subject: Subject, command: str, record: Mapping[str, Any], path: Path) -> Subject:
    if command == "bench":
        return dataclasses.replace(subject, latencies=(*subject.latencies, latency_in(path, record)))
    if command == "evaluate":
        return dataclasses.replace(subject, accuracies=(*subject.accuracies, _accuracy(record, path)))
    return dataclasses.replace(subject, proofs=(*subject.proofs, *_proofs(command, record, path)))


def _accuracy(record: Mapping[str, Any], path: Path) -> Accuracy:
    top1, top5, agreement = (_share(path, record, name) for name in ("top1", "top5", "agreement"))
    images = number(path, "images", record.get("images"))
    if not images:
        raise damaged(path, "images is missing")
    return Accuracy(_where(record), int(images), top1, top5, agreement, Path(str(record.get("reference") or "")).name)


def _share(path: Path, record: Mapping[str, Any], name: str) -> float | None:
    value = number(path, name, record.get(name))
    if value is not None and not 0 <= value <= 1:
        raise damaged(path, f"{name} is {value}; expected a fraction")
    return value


def _proofs(command: str, record: Mapping[str, Any], path: Path) -> Iterator[Proof]:
    parity = record.get("parity", record)
    if not isinstance(parity, dict) or not isinstance(parity.get("metrics", {}), dict):
        raise damaged(path, "parity is no record")
    if "verdict" not in parity:
        return
    metrics, tolerance = parity.get("metrics", {}), parity.get("tolerance")
    held = tolerance.items() if isinstance(tolerance, dict) else ()
    limits = {str(name): limit for name, value in held if (limit := number(path, "tolerance", value)) is not None}
    checks = record.get("checks")
    done = [check.get("ok") is True for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []
    yield Proof(
        command,
        _where(record),
        text(path, parity["verdict"]),
        parity.get("ok") is True,
        number(path, "max_abs", metrics.get("max_abs")),
        limits,
        number(path, "cosine", metrics.get("cosine")),
        (sum(done), len(done)) if done else None,
    )


def _where(record: Mapping[str, Any]) -> str:
    """Engine and provider, and whether it was elsewhere: an address with a user's name is nobody's business."""
    engine = str(record.get("runtime") or "")
    provider = f" ({record['provider']})" if engine and record.get("provider") else ""
    machine = " on another machine" if record.get("on") else ""
    return f"{engine}{provider}{machine}".strip()


def check_documents(paths: Sequence[Path]) -> None:
    """Refuse files that are no documents, before any work is done for a card.

    Raises:
        DataError: one that cannot be read.
    """
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataError(f"there is no file {', '.join(missing)}", fix=AGAIN)
