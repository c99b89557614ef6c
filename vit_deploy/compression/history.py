"""The history of a training: its best epoch, when to stop, and its progress in words.

A record holds what one epoch gave: `epoch`, from 1, or 0 for the model before the first step, if that is as compressed
as was requested; `loss`, of its last step, or None; of the held-out images `top1` and `held_out_loss`, which is what
training makes small; `settled`, whether the model was as compressed as was requested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BAR = 20  # characters
MINUTES_S = 90.0  # from which a time is told in minutes

Record = Mapping[str, Any]


def best(history: Sequence[Record]) -> Record:
    """The settled epoch of the least loss on the held-out images; there has to be one.

    Not the one of the most right answers: images that the original was itself trained on are all right after any epoch.
    """
    return min(_candidates(history), key=lambda record: float(record["held_out_loss"]))


def _candidates(history: Sequence[Record]) -> list[Record]:
    # Of images that the original has seen it knows more than any model that did not see them again.
    return [record for record in history if record["settled"] and record["epoch"]]


def is_best(record: Record, history: Sequence[Record]) -> bool:
    """Whether an epoch is settled and better than those before it."""
    if not _candidates([record]):
        return False
    return not any(candidate["held_out_loss"] <= record["held_out_loss"] for candidate in _candidates(history))


def is_gained(history: Sequence[Record]) -> bool:
    """Whether the best epoch is better than the model before the first step, where that was compressed already."""
    before = [record["held_out_loss"] for record in history if not record["epoch"]]
    return not before or not _candidates(history) or bool(best(history)["held_out_loss"] < before[0])


def is_over(history: Sequence[Record], patience: int) -> bool:
    """Whether no epoch of the last `patience` was better than those before; never with a patience of 0."""
    if not patience or not _candidates(history):
        return False
    return bool(history[-1]["epoch"] - best(history)["epoch"] >= patience)


def in_words(record: Record) -> str:
    """What an epoch gave, for people."""
    return f"{record['top1']:.2%} of the held-out images right, loss {record['held_out_loss']:.4g}"


def bar(done: int, total: int) -> str:
    """How much is done of something: `[=====               ]`."""
    full = BAR * done // total
    return f"[{'=' * full}{' ' * (BAR - full)}]"


def duration(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.0f} s" if seconds < MINUTES_S else f"{seconds / 60:.0f} min"
