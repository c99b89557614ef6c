"""Documents that a command has written, and whether a run can have given the measurements in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.core.documents import SCHEMA
from vit_deploy.core.staging import staged_file
from vit_deploy.errors import DataError
from vit_deploy.performance.latency import FACTS, FIGURES, Latency
from vit_deploy.performance.latency_json import from_json

BEYOND_MEASURE = 1e18  # no figure that was measured is as large
# Lone surrogates and controls have no place in a page, and the marks that turn text around would deceive.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
MEASURED = ("load_ms", "first_ms")
MAYBE_MEASURED = (
    "peak_rss_mb",
    "gpu_energy_j",
    "build_ms",
    "peak_gpu_mb",
    *(name for name in FACTS if name not in ("flat", "idle")),
)
HOST_FIGURES = ("memory_mb", "load_1m", "cpu_mhz", "temperature_c", "competing")


def read_document(path: Path, commands: Sequence[str], *, fix: str) -> dict[str, Any]:
    """A document of one of some commands, in which all text can be printed.

    Args:
        path: the path of the file.
        commands: whose documents are wanted.
        fix: what to do about any other file.

    Raises:
        DataError: no such file, or other content.
    """
    try:
        document = _printable(json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", fix=fix) from error
    if not isinstance(document, dict) or "command" not in document or "schema" not in document:
        raise DataError(f"{path} is no document of vit-deploy", fix=fix)
    if document["schema"] != SCHEMA:
        raise DataError(
            f"{path} was written by another version of vit-deploy: its schema is {document['schema']!r}; "
            f"this version reads {SCHEMA}",
            fix="use the version that wrote it, or measure again",
        )
    if document["command"] not in commands:
        raise DataError(f"{path} is of {document['command']}; expected one of {', '.join(commands)}", fix=fix)
    if isinstance(document.get("error"), dict):
        raise DataError(f"{path} tells of a failure: {document['error'].get('message')}", fix=fix)
    results = document.get("results")
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise damaged(path, "results is no list of records")
    return document


def save_document(document: Mapping[str, Any], path: Path, *, force: bool) -> None:
    """Write a document to a file, whole or not at all.

    Args:
        document: of a command.
        path: file to write.
        force: whether a file that is there is replaced.

    Raises:
        OutputError: it is there and `force` is not set, or the disk refuses.
    """
    with staged_file(path, force=force) as staged:
        staged.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def latency_in(path: Path | str, record: Mapping[str, Any]) -> Latency:
    """What a record of `bench` holds.

    Args:
        path: the path of the file that it is in, or the address of the machine that it is from, for error messages.
        record: a record as `latency.to_json` makes it.

    Raises:
        DataError: values that no run has given.
    """
    try:
        latency = from_json(record)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, DataError) as error:
        raise damaged(path, f"{error} is missing" if isinstance(error, KeyError) else str(error)) from error
    case = latency.case
    for name in MEASURED:
        if number(path, name, getattr(latency, name)) is None:
            raise damaged(path, f"{name} is missing")
    for name in MAYBE_MEASURED:
        number(path, name, getattr(latency, name))
    for name in HOST_FIGURES:
        number(path, name, getattr(latency.host, name))
    if number(path, "cores", latency.host.cores) is None:
        raise damaged(path, "cores is missing")
    maybe = {"threads": case.threads, "file_batch": latency.file_batch}
    counts = {name: value for name, value in maybe.items() if value is not None}
    for name, value in {"batch": case.batch, "streams": case.streams, **counts}.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise damaged(path, f"{name} is {value!r}; expected a positive number")
    if not isinstance(case.device, int) or isinstance(case.device, bool) or not 0 <= case.device < 1 << 31:
        raise damaged(path, f"device is {case.device!r}; expected a number from 0")
    if len(latency.queued_calls) != len(latency.queued_ns) or min((*latency.queued_calls, *latency.queued_ns, 1)) < 1:
        raise damaged(path, "calls in a row that no run has made")
    times = (*latency.samples_ns, *latency.round_ns, *latency.preprocess_ns, *latency.transfer_ns, *latency.queued_ns)
    if not 0 <= min(times) <= max(times) <= BEYOND_MEASURE:
        raise damaged(path, "times that no clock has given")
    if endless := [name for name in FIGURES if getattr(latency, name) in (math.inf, -math.inf)]:
        raise damaged(path, f"{', '.join(endless)} is without end")
    return latency


def number(path: Path | str, name: str, value: object) -> float | None:
    """`value` if it is a figure that something can have measured, or none.

    Raises:
        DataError: anything else.
    """
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and _is_figure(value)):
        return value
    raise damaged(path, f"{name} is {value!r}; expected a number")


def text(path: Path, value: object) -> str:
    """`value` if it is one that names something.

    Raises:
        DataError: anything else.
    """
    if not isinstance(value, str) or not value:
        raise damaged(path, f"{value!r} where a name was expected")
    return value


def damaged(path: Path | str, detail: str) -> DataError:
    """What to raise of a document that no command has written so."""
    return DataError(f"{path} is damaged: {detail}", fix="write it again")


def _is_figure(value: float) -> bool:
    return abs(value) <= BEYOND_MEASURE  # which no infinity and no NaN is


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _printable(value: Any) -> Any:
    """The same with text that can be printed."""
    if isinstance(value, str):
        return UNPRINTABLE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    return value
