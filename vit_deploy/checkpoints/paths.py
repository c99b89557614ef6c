"""Which container does a path lead to, and what if it leads to none?"""

from __future__ import annotations

import difflib
from pathlib import Path

from vit_deploy.artifact import MANIFEST
from vit_deploy.config import SCALE_CONFIGS
from vit_deploy.errors import CheckpointError

SUFFIXES = (".keras", ".h5", ".safetensors")  # what a checkpoint's name can end in
ARTIFACT_SUFFIXES = (".onnx", ".tflite", ".pb")
ZIP, H5 = b"PK\3\4", b"\x89HDF\r\n\x1a\n"


def checked_path(path: Path) -> Path:
    """`path`, if a file is there.

    Raises:
        CheckpointError: nothing is there, or a folder; says what might have been meant.
    """
    if path.is_dir():
        raise _of_folder(path)
    if not path.is_file():
        folder = path.parent
        names = [each.name for each in sorted(folder.glob("*")) if each.suffix in SUFFIXES] if folder.is_dir() else []
        close = difflib.get_close_matches(path.name, [*names, *SCALE_CONFIGS], n=1)
        where = f"the checkpoints in {folder} are {', '.join(names)}" if names else f"{folder} holds no checkpoint"
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise CheckpointError(
            f"there is no file {path}",
            fix=f"{meant}{where}; the scales are {', '.join(SCALE_CONFIGS)}",
        )
    return path


def _of_folder(path: Path) -> CheckpointError:
    if (path / MANIFEST).is_file() or (path / "saved_model.pb").is_file():
        return CheckpointError(
            f"{path} is an artifact, which weights cannot be taken back from",
            fix="give the checkpoint that it was exported from (.keras or .safetensors)",
        )
    inside = [each.name for each in sorted(path.glob("*")) if each.suffix in SUFFIXES]
    return CheckpointError(
        f"{path} is a folder", fix=f"give the file: {', '.join(inside)}" if inside else "give a checkpoint file"
    )


def detected_container(path: Path) -> str:
    """The key in `CONTAINERS`, by the file's first bytes.

    Raises:
        CheckpointError: it is no container that is known.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    if start.startswith(ZIP):
        return "keras"
    if start.startswith(H5):
        return "h5"
    if start[8:9] == b"{":
        return "safetensors"
    if path.suffix in ARTIFACT_SUFFIXES:
        raise CheckpointError(
            f"{path} is an artifact, which weights cannot be taken back from",
            fix="give the checkpoint that it was exported from (.keras or .safetensors)",
        )
    raise CheckpointError(
        f"{path} is no checkpoint: it begins neither like a .keras nor like an .h5 or a .safetensors file",
        fix="if its name is right, the file is damaged: get it again",
    )
