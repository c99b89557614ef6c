"""How does a result become a JSON record that scripts can rely on?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import VitDeployError

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.checkpoint import Checkpoint
    from vit_deploy.parity import Parity, Verification

SCHEMA = 1

Record = Mapping[str, Any]


def document(command: str, results: Sequence[Record], *, ok: bool, skipped: Sequence[str] = ()) -> dict[str, Any]:
    """The one JSON document that a command prints."""
    return {"schema": SCHEMA, "command": command, "ok": ok, "results": list(results), "skipped": list(skipped)}


def failure(command: str, error: VitDeployError) -> dict[str, Any]:
    """The document of a command that could not do its work."""
    said = {"type": type(error).__name__, "message": error.message, "fix": error.fix}
    return document(command, [], ok=False) | {"error": said}


def parity(result: Parity) -> dict[str, Any]:
    """Metrics, what they were held to, and what is wrong in words."""
    names = ("max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl")
    return {
        "ok": result.ok,
        "metrics": {name: finite(getattr(result, name)) for name in names},
        "tolerance": {"max_abs": finite(result.tolerance)},
        "worst_index": list(result.worst),
        "failures": [*result.failures, *result.notes],
    }


def verification(result: Verification) -> dict[str, Any]:
    """One result of `verify`."""
    named = {"artifact": str(result.artifact.path), "runtime": result.runtime, "provider": result.provider}
    return named | parity(result.parity)


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


def megabytes(count: int) -> str:
    """Bytes for people, in MB of 10^6 bytes."""
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
