"""Which measurements are in the documents that a report is made of, and which belong together?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from vit_deploy.errors import DataError
from vit_deploy.host import Host
from vit_deploy.latency import FACTS, FIGURES, Latency, from_json
from vit_deploy.profiling import OperatorTime
from vit_deploy.report import SCHEMA

COMMANDS = ("bench", "evaluate", "verify", "export", "quantize")
BEYOND_MEASURE = 1e18  # no figure that was measured is as large
AGAIN = "give what vit-deploy bench --save, and evaluate, verify, export or quantize with --json have written"
# Lone surrogates and controls have no place in a page, and the marks that turn text around would deceive.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
SAME_MACHINE = ("cpu", "architecture", "cores", "memory_mb", "os", "python")
MEASURED = ("load_ms", "first_ms")
MAYBE_MEASURED = ("peak_rss_mb", "gpu_energy_j", *(name for name in FACTS if name not in ("flat", "idle")))
HOST_FIGURES = ("memory_mb", "load_1m", "cpu_mhz", "temperature_c", "competing")


@dataclass(frozen=True)
class Quality:
    """What other commands found out about an artifact; None for what none of them did.

    Args:
        artifact: its path, as it was given to them.
        precision: of its weights.
        bytes: of the model files.
        top1: fraction of the images that it gets right.
        top5: fraction whose class is among its five best.
        agreement: fraction on which it is of one mind with the fp32 artifact.
        images: that these fractions are of.
        max_abs: largest difference from the reference.
        cosine: between its outputs and those of the reference.
        snr_db: of its outputs, in decibels; None for exact equality too.
        verdict: of the parity check.
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


@dataclass(frozen=True)
class Timed:
    """One case of a benchmark with all that is known of its artifact.

    Args:
        latency: as it was measured.
        machine: the name of the one it was measured on.
        ratio: of its median to that of the first case on the same machine.
        profile: time of each operator; empty where none was taken.
        quality: of the artifact.
    """

    latency: Latency
    machine: str
    ratio: float
    profile: tuple[OperatorTime, ...]
    quality: Quality

    @property
    def bytes(self) -> float | None:
        """Of the model files."""
        return self.quality.bytes if self.latency.bytes is None else self.latency.bytes


@dataclass(frozen=True)
class Gathered:
    """All that a report tells.

    Args:
        cases: in the order of the files.
        machines: by the name that the cases call them.
        untimed: artifacts that other commands have looked at and none has timed.
    """

    cases: tuple[Timed, ...]
    machines: Mapping[str, Host]
    untimed: tuple[Quality, ...] = ()


def gather(paths: Sequence[Path]) -> Gathered:
    """Read documents and join what they say by the path of the artifact.

    Args:
        paths: of documents with one of `COMMANDS` each; later ones win.

    Raises:
        DataError: a file that is none, is damaged, or not one in which something was timed.
    """
    documents = [(path, _read(path)) for path in paths]
    qualities = _qualities(documents)
    timings = [
        (path, each) for path, document in documents if document["command"] == "bench" for each in document["results"]
    ]
    if not timings:
        raise DataError(f"nothing was timed in {', '.join(map(str, paths))}", fix=AGAIN)
    measured = [(_machine(record), _latency(path, record), _profile(path, record)) for path, record in timings]
    names = _machine_names((on, latency.host) for on, latency, _ in measured)
    first: dict[str, Latency] = {}
    cases = []
    for on, latency, profile in measured:
        machine = names[_identity(on, latency.host)]
        base = first.setdefault(machine, latency)
        quality = _joined(str(latency.case.artifact), qualities)
        cases.append(Timed(latency, machine, latency.p50_ms / base.p50_ms, profile, quality))
    timed = {case.quality.artifact for case in cases}
    untimed = tuple(each for each in qualities.values() if each.artifact not in timed)
    return Gathered(tuple(cases), {case.machine: case.latency.host for case in reversed(cases)}, untimed)


def _qualities(documents: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, Quality]:
    found: dict[str, Quality] = {}
    for path, document in documents:
        named = "path" if document["command"] in ("export", "quantize") else "artifact"
        for record in document["results"] if document["command"] != "bench" else ():
            if record.get(named) is not None:  # null where an export was not published
                name = _text(path, record[named])
                found[name] = replace(found.get(name, Quality(name)), **_findings(path, record))
    return found


def _machine(record: Mapping[str, Any]) -> str:
    return str(record.get("on") or "")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = _clean(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", fix=AGAIN) from error
    if not isinstance(document, dict) or "command" not in document or document.get("schema") != SCHEMA:
        raise DataError(f"{path} is no document of vit-deploy", fix=AGAIN)
    if document["command"] not in COMMANDS:
        raise DataError(f"{path} is of {document['command']}; expected one of {', '.join(COMMANDS)}", fix=AGAIN)
    if isinstance(document.get("error"), dict):
        raise DataError(f"{path} tells of a failure: {document['error'].get('message')}", fix=AGAIN)
    results = document.get("results")
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise _damaged(path, "results is no list of records")
    return document


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _clean(value: Any) -> Any:
    """The same with text that can be printed."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return value


def _findings(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Quality` that a record of any command but `bench` says something about."""
    parity = record.get("parity", record)
    if not isinstance(parity, dict):
        raise _damaged(path, "parity is no record")
    metrics = parity.get("metrics", {})
    if not isinstance(metrics, dict):
        raise _damaged(path, "metrics is no record")
    words = {name: values[name] for name, values in (("precision", record), ("verdict", parity)) if name in values}
    figures = {name: record[name] for name in ("bytes", "top1", "top5", "agreement", "images") if name in record}
    figures |= {name: metrics[name] for name in ("max_abs", "cosine", "snr_db") if name in metrics}
    return {name: _text(path, value) for name, value in words.items() if value is not None} | {
        name: _number(path, name, value) for name, value in figures.items()
    }


def _text(path: Path, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _damaged(path, f"{value!r} where a name was expected")
    return value


def _number(path: Path, name: str, value: object) -> float | None:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and _is_figure(value)):
        return value
    raise _damaged(path, f"{name} is {value!r}; expected a number")


def _is_figure(value: float) -> bool:
    return abs(value) <= BEYOND_MEASURE  # which no infinity and no NaN is


def _latency(path: Path, record: Mapping[str, Any]) -> Latency:
    try:
        latency = from_json(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataError) as error:
        raise _damaged(path, f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error
    case = latency.case
    for name in MEASURED:
        if _number(path, name, getattr(latency, name)) is None:
            raise _damaged(path, f"{name} is missing")
    for name in MAYBE_MEASURED:
        _number(path, name, getattr(latency, name))
    for name in HOST_FIGURES:
        _number(path, name, getattr(latency.host, name))
    if _number(path, "cores", latency.host.cores) is None:
        raise _damaged(path, "cores is missing")
    maybe = {"threads": case.threads, "file_batch": latency.file_batch}
    counts = {name: value for name, value in maybe.items() if value is not None}
    for name, value in {"batch": case.batch, "streams": case.streams, **counts}.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise _damaged(path, f"{name} is {value!r}; expected a positive number")
    times = (*latency.samples_ns, *latency.round_ns, *latency.preprocess_ns, *latency.transfer_ns)
    if not latency.p50_ms > 0 or not 0 <= min(times) <= max(times) <= BEYOND_MEASURE:
        raise _damaged(path, "times that no clock has given")
    if latency.round_calls and min(latency.round_calls) < 0:
        raise _damaged(path, f"round_calls is {latency.round_calls}; expected positive numbers")
    if endless := [name for name in FIGURES if getattr(latency, name) in (math.inf, -math.inf)]:
        raise _damaged(path, f"{', '.join(endless)} is without end")
    return latency


def _profile(path: Path, record: Mapping[str, Any]) -> tuple[OperatorTime, ...]:
    rows = record.get("profile") or []
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise _damaged(path, "profile is no list of records")
    found = []
    for row in rows:
        calls, ms, share = (_number(path, name, row.get(name)) for name in ("calls", "ms", "share"))
        if calls is None or ms is None or share is None or ms < 0:
            raise _damaged(path, "an operator in profile has no time")
        found.append(OperatorTime(_text(path, row.get("operator")), calls, ms, share))
    return tuple(found)


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(f"{path} is damaged: {detail}", fix="write it anew")


def _identity(on: str, host: Host) -> tuple[object, ...]:
    return (on, *(str(getattr(host, name)) for name in SAME_MACHINE))


def _machine_names(seen: Iterable[tuple[str, Host]]) -> dict[tuple[object, ...], str]:
    names: dict[tuple[object, ...], str] = {}
    for on, host in seen:
        plain = on or str(host.cpu)
        alike = sum(name == plain or name.startswith(f"{plain} (") for name in names.values())
        names.setdefault(_identity(on, host), f"{plain} ({alike + 1})" if alike else plain)
    return names


def _joined(artifact: str, qualities: Mapping[str, Quality]) -> Quality:
    """What is known of an artifact by its path, else by the last two names of it if no other has them."""
    if artifact in qualities:
        return qualities[artifact]
    tail = PurePath(artifact).parts[-2:]
    named = [each for each in qualities.values() if PurePath(each.artifact).parts[-2:] == tail]
    return named[0] if len(named) == 1 else Quality(artifact)
