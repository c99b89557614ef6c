"""What a shrinking has found, and the rounds of it that are done, in files, for one that was killed to go on from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints import load, save
from vit_deploy.compression.sizes import Sizes
from vit_deploy.compression.state import load_state
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.staging import explained_os_errors

STEM = "round-"
SIZES = "sizes.json"


@dataclass(frozen=True, eq=False)
class Round:
    """What a round left.

    Args:
        number: from 0.
        checkpoint: trained.
        blocks: numbers of its blocks in the original.
        history: what each epoch so far gave.
    """

    number: int
    checkpoint: Checkpoint
    blocks: tuple[int, ...]
    history: Sequence[Mapping[str, Any]]


def of_round(fingerprint: str, number: int) -> str:
    """The fingerprint of the training of one round."""
    return f"{fingerprint}-{number}"


def save_round(done: Round, folder: Path, fingerprint: str) -> None:
    """Write it whole or not at all: its JSON comes last, and another job's goes first, whose weights are replaced.

    Raises:
        OutputError: the disk is full.
    """
    path = folder / f"{STEM}{done.number}.json"
    about = {"fingerprint": fingerprint, "number": done.number, "blocks": done.blocks, "history": list(done.history)}
    with explained_os_errors(path):
        path.unlink(missing_ok=True)
        save(done.checkpoint, path.with_suffix(".safetensors"), force=True)
        _write(path, about)


def load_round(folder: Path, fingerprint: str) -> Round | None:
    """The last round of the same job; None where none is done."""
    for path in reversed(rounds_in(folder)):
        about = _read(path, fingerprint)
        if about is not None:
            checkpoint = load(path.with_suffix(".safetensors"))
            return Round(about["number"], checkpoint, tuple(about["blocks"]), about["history"])
    return None


def rounds_in(folder: Path) -> list[Path]:
    """The files of all rounds that are done, in their order."""
    return sorted(folder.glob(f"{STEM}*.json"))


def save_sizes(sizes: Sizes, folder: Path, fingerprint: str) -> None:
    """Keep the sizes that were found for a speed-up: whole or not at all.

    Raises:
        OutputError: the disk is full.
    """
    with explained_os_errors(folder / SIZES):
        _write(folder / SIZES, {"fingerprint": fingerprint, "sizes": dataclasses.asdict(sizes)})


def load_sizes(folder: Path, fingerprint: str) -> Sizes | None:
    """The sizes that the same job has found; None where it has not."""
    about = _read(folder / SIZES, fingerprint)
    return None if about is None else Sizes(**about["sizes"])


def has_begun(folder: Path, fingerprint: str) -> bool:
    """Whether there is something of the same job to go on from."""
    done = load_round(folder, fingerprint)
    following = 0 if done is None else done.number + 1
    return done is not None or load_state(folder, of_round(fingerprint, following)) is not None


def _write(path: Path, about: Mapping[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(about), encoding="utf-8")
    unfinished.replace(path)


def _read(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """What was written of a job; None where there is nothing of it."""
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return about if about["fingerprint"] == fingerprint else None
