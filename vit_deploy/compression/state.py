"""The state of a training, so that one that was killed continues where it was.

After each epoch, and every few minutes, all variables are written to one file, which replaces the one before at once.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.staging import explained_os_errors

FILE = "state.npz"
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class State:
    """Where a training is.

    Args:
        step: that comes next.
        variables: the variables of model and optimizer, in their order.
        best: the variables of the model where it answered best; empty before that.
        history: what each epoch gave.
    """

    step: int = 0
    variables: Sequence[Array] = ()
    best: Sequence[Array] = ()
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)


def save_state(state: State, folder: Path, fingerprint: str) -> None:
    """Write it whole or not at all.

    Args:
        state: the state of the training.
        folder: the folder of the training.
        fingerprint: the fingerprint of the job; only the same job takes the state up.

    Raises:
        OutputError: the disk is full.
    """
    about = json.dumps({"fingerprint": fingerprint, "step": state.step, "history": list(state.history)})
    arrays = {f"variable_{index}": value for index, value in enumerate(state.variables)}
    arrays |= {f"best_{index}": value for index, value in enumerate(state.best)}
    unfinished = folder / f"{FILE}.unfinished"
    with explained_os_errors(folder / FILE):
        with unfinished.open("wb") as stream:
            np.savez(stream, about=np.frombuffer(about.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        unfinished.replace(folder / FILE)


def load_state(folder: Path, fingerprint: str) -> State | None:
    """What was saved of the same job; None where there is nothing of it."""
    try:
        with np.load(folder / FILE, allow_pickle=False) as file:
            about = json.loads(file["about"].tobytes())
            if about["fingerprint"] != fingerprint:
                return None
            return State(about["step"], _series(file, "variable"), _series(file, "best"), about["history"])
    except (FileNotFoundError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError):
        return None


def _series(file: Any, name: str) -> list[Array]:
    count = sum(name_of_file.startswith(f"{name}_") for name_of_file in file.files)
    return [file[f"{name}_{index}"] for index in range(count)]
