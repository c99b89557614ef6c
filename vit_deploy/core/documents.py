"""The JSON document that every command prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.errors import Failed, VitDeployError

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.core.checkpoint import Checkpoint

SCHEMA = 1

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
    entries = [
        {"artifact": one.name, "format": one.format, "precision": one.precision, "error": _said(one.error)}
        for one in failed
    ]
    return {"failed": entries, "error": entries[0]["error"]}


def _said(error: VitDeployError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": error.message, "fix": error.fix}


def saved(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint that was written, a file or a folder of files."""
    files = [path] if path.is_file() else [*path.iterdir()]
    return {
        "path": str(path),
        "bytes": sum(file.stat().st_size for file in files),
        "parameters": checkpoint.num_parameters,
        "config": checkpoint.config.to_dict(),
        "weights_digest": checkpoint.digest(),
    }


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if value is not None and math.isfinite(value) else None
