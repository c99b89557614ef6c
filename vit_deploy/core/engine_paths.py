"""Paths of model files as the text that engines take."""

from __future__ import annotations

from pathlib import Path

from vit_deploy.errors import EngineError, OutputError

FIX = "give the files and the folders above them names in UTF-8"


def is_text(path: Path) -> bool:
    """Whether a path can be written as UTF-8; elsewhere than on Windows a name is any bytes."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def engine_path(path: Path) -> str:
    """The path of a model file for an engine.

    Raises:
        EngineError: one that is no UTF-8, which no engine takes.
    """
    if not is_text(path):
        raise EngineError(f"{path} is no UTF-8, and engines take no other names", fix=FIX)
    return str(path)


def refuse_odd_folder(path: Path) -> None:
    """Refuse a folder for model files that no engine could read, before there is any.

    Raises:
        OutputError: its path is no UTF-8.
    """
    if not is_text(path.absolute()):
        raise OutputError(f"{path} is no UTF-8, and engines take no other names", fix=FIX)
