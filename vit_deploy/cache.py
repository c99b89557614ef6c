"""The folder in which work is kept that another run would do again, and files in it."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

VARIABLE = "VIT_DEPLOY_CACHE"


def cache_folder() -> Path:
    """`$VIT_DEPLOY_CACHE`, else `vit-deploy` in `$XDG_CACHE_HOME`, else `~/.cache/vit-deploy`; it need not be there."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    usual = os.environ.get("XDG_CACHE_HOME")
    return (Path(usual) if usual else Path.home() / ".cache") / "vit-deploy"


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
