"""Results as the JSON records that scripts rely on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import Failed, VitDeployError
from vit_deploy.verification.tolerances import LIMITS

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.core.checkpoint import Checkpoint
    from vit_deploy.formats.bare import Assumption
    from vit_deploy.verification.locate.divergence import Located
    from vit_deploy.verification.parity import Parity, Verification

SCHEMA = 1
REPORTED = b"vit-deploy verify"  # at the beginning of every report of a check
MARKED_WITHIN = 200  # bytes

Record = Mapping[str, Any]


def document(command: str, results: Sequence[Record], *, ok: bool, skipped: Sequence[str] = ()) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    return {"schema": SCHEMA, "command": command, "ok": ok, "results": list(results), "skipped": list(skipped)}


def failure(command: str, error: VitDeployError) -> dict[str, Any]:
    """The document of a command that could not do its work."""
    return document(command, [], ok=False) | {"error": _said(error)}


def failures(failed: Sequence[Failed]) -> dict[str, Any]:
    """What a document says beside its results of artifacts that came to nothing; `error` is that of the first."""
    if not failed:
        return {}
    each = [
        {"artifact": one.name, "format": one.format, "precision": one.precision, "error": _said(one.error)}
        for one in failed
    ]
    return {"failed": each, "error": each[0]["error"]}


def _said(error: VitDeployError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": error.message, "fix": error.fix}


METRICS = ("max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl")  # always there
MORE_METRICS = ("relative", "flips", "token_cosine", "centred_cosine", "centred_snr_db")  # where they apply


def parity(result: Parity) -> dict[str, Any]:
    """Metrics, what they were held to, and what is wrong in words."""
    more = {name: finite(getattr(result, name)) for name in MORE_METRICS}
    return {
        "ok": result.ok,
        "verdict": result.verdict,
        "metrics": {name: finite(getattr(result, name)) for name in METRICS}
        | {name: value for name, value in more.items() if value is not None},
        "tolerance": {name: finite(limit) for name, limit in result.tolerance.held().items()},
        "worst_index": list(result.worst),
        "failures": [*result.failures, *result.notes],
    }


def judged(result: Parity) -> tuple[str, str]:
    """The figure that counts most and the tolerance it was held to, for a table: largest difference, else the first."""
    held = result.tolerance.held()
    name = next(iter(held), "max_abs")
    return shown(name, getattr(result, name)), shown(name, held.get(name))


def held(result: Parity) -> str:
    """Every figure that is held to a limit, with the limit beside it, for people."""
    limits = result.tolerance.held().items()
    figures = [(name, getattr(result, name), "≤" if LIMITS[name].at_most else "≥", limit) for name, limit in limits]
    return ", ".join(
        f"{name} {shown(name, value)} ({sign} {shown(name, limit)})"
        for name, value, sign, limit in figures
        if value is not None
    )


def judged_column(results: Sequence[Parity]) -> str:
    """What to write above the figures of `judged`."""
    return "max abs" if all(each.tolerance.max_abs is not None for each in results) else "figure"


def shown(name: str, value: float | None) -> str:
    """A metric for people, in its unit."""
    if value is None:
        return "-"
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    if name in ("top1_agreement", "top5_agreement", "flips"):
        return f"{value:.0%}"
    return f"{value:.7f}" if name.endswith("cosine") else f"{value:.1e}"


def assumed(each: Sequence[Assumption]) -> list[dict[str, str]]:
    """What was taken for true of a file that does not say it."""
    return [{"field": one.field, "value": one.value, "why": one.why} for one in each]


def verification(result: Verification) -> dict[str, Any]:
    """One result of `verify`."""
    named = {
        "artifact": str(result.artifact.path),
        "format": result.artifact.format,
        "precision": result.artifact.precision,
        "runtime": result.runtime,
        "provider": result.provider,
    }
    proof = parity(result.parity)
    own = {
        "ok": result.ok,
        "verdict": result.verdict,
        "seconds": round(result.seconds, 3),
        "golden_failures": list(result.parity.failures),
        "checks": [{"name": each.name, "ok": each.ok, "message": each.words} for each in result.checks],
        "failures": [*result.failures, *result.parity.notes],
    }
    return named | proof | own


def unanswered(machine: str, why: str) -> dict[str, Any]:
    """What stands in a report of `verify` for a machine that gave no results."""
    nothing: dict[str, Any] = {"metrics": dict.fromkeys(METRICS), "tolerance": {}, "checks": [], "seconds": 0.0}
    named = {"artifact": machine, "format": "any", "precision": "any", "runtime": "no answer", "provider": "-"}
    return named | nothing | {"ok": False, "verdict": "inconclusive", "golden_failures": [why], "failures": [why]}


def located(result: Located) -> dict[str, Any]:
    """Where an artifact leaves the reference, with every tap; an error that is not finite is null, and not ok."""
    return {
        "tap": result.tap,
        "operator": result.operator,
        "taps": [
            {
                "tap": each.name,
                "ok": each.ok if each.error is not None else None,
                "error": finite(each.error),
                "noise_floor": each.noise_floor,
                "tolerance": each.tolerance,
                "growth": finite(growth),
            }
            for each, growth in zip(result.taps, result.growth(), strict=True)
        ],
        "notes": list(result.notes),
    }


def not_located(error: VitDeployError) -> dict[str, Any]:
    """The same of an artifact that cannot be looked into."""
    return {"tap": None, "operator": None, "taps": [], "notes": [error.message]}


def saved(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint file that was written."""
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "parameters": checkpoint.num_parameters,
        "config": checkpoint.config.to_dict(),
        "weights_digest": checkpoint.digest(),
    }


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None


def milliseconds(value: float) -> str:
    """Three digits at least, for people."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def milliseconds_apart(one: float, other: float) -> tuple[str, str]:
    """Two that differ, with as many digits as it takes to see it."""
    pair = milliseconds(one), milliseconds(other)
    digits = 4
    while pair[0] == pair[1] and one != other:
        pair, digits = (f"{one:.{digits}g}", f"{other:.{digits}g}"), digits + 1
    return pair


def is_of_a_check(path: Path) -> bool:
    """Whether a file is a report of `verify` in JUnit's format or Markdown, which another run may replace."""
    try:
        with path.open("rb") as file:
            return REPORTED in file.read(MARKED_WITHIN)
    except OSError:  # there is none, or it is a folder
        return False


def megabytes(count: int) -> str:
    """Bytes for people, in MB of 10^6 bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
