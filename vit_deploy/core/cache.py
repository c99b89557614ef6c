"""The folder in which work is kept that another run would do again, and files in it."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path

VARIABLE = "VIT_DEPLOY_CACHE"
NAME = "vit-deploy"


def cache_folder() -> Path:
    """Where this user's caches lie; nothing is made there yet.

    `VIT_DEPLOY_CACHE` is taken as it is; without it, it is a folder of this program's among the user's other caches.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        usual = Path.home() / "Library" / "Caches"
    else:
        # The specification of these folders has relative paths ignored.
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        usual = given if given.is_absolute() else Path.home() / ".cache"
    return Path(usual) / NAME


def read_cached(path: Path) -> bytes:
    """What was kept there; nothing where there is no such file, or none that can be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def write_cached(path: Path, content: bytes) -> None:
    """Keep it, whole or not at all; where the disk refuses, the next run does the work again."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
