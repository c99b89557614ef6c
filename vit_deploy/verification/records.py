"""Results as the JSON records that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.documents import finite
from vit_deploy.errors import VitDeployError
from vit_deploy.verification.tolerances import LIMITS

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.formats.bare import Assumption
    from vit_deploy.verification.locate.divergence import Located
    from vit_deploy.verification.parity import Parity
    from vit_deploy.verification.verifying import Verification

REPORTED = b"vit-deploy verify"  # at the beginning of every report of a check
MARKED_WITHIN = 200  # bytes

METRICS = ("max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl")  # always there
MORE_METRICS = (
    "relative",
    "flips",
    "token_cosine",
    "centred_cosine",
    "centred_snr_db",
    "total_variation",
)  # where they apply


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


def figure_and_limit(result: Parity) -> tuple[str, str]:
    """The figure that counts most and the tolerance it was held to, for a table: largest difference, else the first."""
    held = result.tolerance.held()
    name = next(iter(held), "max_abs")
    return shown(name, getattr(result, name)), shown(name, held.get(name))


def judged(record: Mapping[str, Any]) -> str:
    """The same two of a record of `parity`, in words."""
    name, limit = next(iter(record["tolerance"].items()), ("max_abs", None))
    figure = f"{LIMITS[name].words} {shown(name, record['metrics'].get(name))}"
    return figure if limit is None else f"{figure}, tolerance {shown(name, limit)}"


def held(result: Parity) -> str:
    """Every figure that is held to a limit, with the limit beside it, for people."""
    limits = result.tolerance.held().items()
    figures = [(name, getattr(result, name), "≤" if LIMITS[name].at_most else "≥", limit) for name, limit in limits]
    return ", ".join(
        f"{name} {shown(name, value)} ({sign} {shown(name, limit)})"
        for name, value, sign, limit in figures
        if value is not None
    )


def figure_heading(results: Sequence[Parity]) -> str:
    """What to write above the figures of `figure_and_limit`."""
    return "max abs" if all(result.tolerance.max_abs is not None for result in results) else "figure"


def shown(name: str, value: float | None) -> str:
    """A metric for people, in its unit."""
    if value is None:
        return "-"
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    if name in ("top1_agreement", "top5_agreement", "flips"):
        return f"{value:.0%}"
    return f"{value:.7f}" if name.endswith("cosine") else f"{value:.1e}"


def assumed(verified: Sequence[Assumption]) -> list[dict[str, str]]:
    """What was taken for true of a file that does not say it."""
    return [{"field": one.field, "value": one.value, "why": one.why} for one in verified]


def verification(result: Verification) -> dict[str, Any]:
    """One result of `verify`."""
    named = {
        "artifact": str(result.artifact.path),
        "format": result.artifact.format,
        "precision": result.artifact.precision,
        "runtime": result.runtime,
        "provider": result.provider,
        **({"engine": dict(result.engine)} if result.engine else {}),
    }
    proof = parity(result.parity)
    own = {
        "ok": result.ok,
        "verdict": result.verdict,
        "seconds": round(result.seconds, 3),
        "golden_failures": list(result.parity.failures),
        "checks": [{"name": check.name, "ok": check.ok, "message": check.words} for check in result.checks],
        "failures": [*result.failures, *result.parity.notes],
    }
    if result.sizes:
        own["sizes"] = [
            one.size.to_dict() | parity(one.parity) | _notes(one.parity) | of_outputs(one.outputs)
            for one in result.sizes
        ]
    return named | proof | own | of_outputs(result.outputs)


def _notes(result: Parity) -> dict[str, Any]:
    """Which of the words of a parity that failed say nothing against it; where it is well, all do."""
    return {"notes": list(result.notes)} if result.notes and not result.ok else {}


def of_outputs(outputs: Mapping[str, Parity]) -> dict[str, Any]:
    """What became of each output, where an artifact was made for outputs by name."""
    found = {}
    for name, result in outputs.items():
        whole = parity(result)
        found[name] = {key: whole[key] for key in ("ok", "metrics", "tolerance", "failures")} | _notes(result)
        if result.compared:
            found[name]["compared"] = dict(result.compared)
    return {"outputs": found} if found else {}


def unanswered(machine: str, why: str) -> dict[str, Any]:
    """What stands in a report of `verify` for a machine that gave no results."""
    nothing: dict[str, Any] = {"metrics": dict.fromkeys(METRICS), "tolerance": {}, "checks": [], "seconds": 0.0}
    named = {"artifact": machine, "format": "any", "precision": "any", "runtime": "no answer", "provider": "-"}
    return named | nothing | {"ok": False, "verdict": "inconclusive", "golden_failures": [why], "failures": [why]}


def located(result: Located) -> dict[str, Any]:
    """Where an artifact leaves the reference, with every activation; an error that is not finite is null and not ok."""
    return {
        "tap": result.activation,
        "operator": result.operator,
        "taps": [
            {
                "tap": activation.name,
                "ok": activation.ok if activation.error is not None else None,
                "error": finite(activation.error),
                "noise_floor": activation.noise_floor,
                "tolerance": activation.tolerance,
                "growth": finite(growth),
            }
            for activation, growth in zip(result.activations, result.growth(), strict=True)
        ],
        "notes": list(result.notes),
    }


def not_located(error: VitDeployError) -> dict[str, Any]:
    """The same of an artifact that cannot be looked into."""
    return {"tap": None, "operator": None, "taps": [], "notes": [error.message]}


def is_of_a_check(path: Path) -> bool:
    """Whether a file is a report of `verify` in JUnit's format or Markdown, which another run may replace."""
    try:
        with path.open("rb") as file:
            return REPORTED in file.read(MARKED_WITHIN)
    except OSError:  # there is none, or it is a folder
        return False
