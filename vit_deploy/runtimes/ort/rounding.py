"""TF32 in NVIDIA's libraries below TensorRT's provider, which has no option for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from vit_deploy.core.child_processes import set_for_libraries

OVERRIDE = "NVIDIA_TF32_OVERRIDE"

_loaded_rounding: list[bool] = []  # whether libraries of this process were first loaded with TF32 allowed


@contextlib.contextmanager
def rounding(provider: str, allow_tf32: bool) -> Iterator[None]:
    """Have TensorRT's libraries forbid TF32 where it is not allowed; the variable is set back when the block ends."""
    if provider != "tensorrt" or allow_tf32:
        yield
        return
    before = os.environ.get(OVERRIDE)
    set_for_libraries(OVERRIDE, "0")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(OVERRIDE, None)
        else:
            os.environ[OVERRIDE] = before


def rounds() -> bool:
    """Whether libraries that are loaded now may round to TF32."""
    return os.environ.get(OVERRIDE) != "0"


def remember_rounding() -> None:
    """Note how libraries are loaded; those that are there already stay as they are."""
    _loaded_rounding[:] = _loaded_rounding[:1] or [rounds()]


def rounding_notes(provider: str) -> tuple[str, ...]:
    """What to say where a session wants it otherwise than the libraries of this process were loaded."""
    if provider != "tensorrt" or not _loaded_rounding or _loaded_rounding[0] == rounds():
        return ()
    words = ("allowed", "forbidden") if _loaded_rounding[0] else ("forbidden", "allowed")
    return (
        f"NVIDIA's libraries were loaded in this process with TF32 {words[0]}, and here it is {words[1]}: "
        "they may go on as they were; a process of its own is sure",
    )
