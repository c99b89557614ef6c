"""The container that a path leads to, or a clear error."""

from __future__ import annotations

import zipfile
from pathlib import Path

from vit_deploy.checkpoints.wrapping.strangers import START_BYTES, not_weights
from vit_deploy.core.config import SCALE_CONFIGS
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.errors import CheckpointError, closest

# What a checkpoint's name can end in.
SUFFIXES = (".keras", ".h5", ".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
OF_ZIPS = {".npz": "npz", **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".tar"), "torch")}
ZIP, H5 = b"PK\3\4", b"\x89HDF\r\n\x1a\n"
PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def checked_path(path: Path) -> Path:
    """`path`, if a file or a folder is there.

    Raises:
        CheckpointError: nothing is there, a device or a pipe, or an artifact; says what might have been meant.
    """
    if path.is_dir():
        if (path / MANIFEST).is_file() or any((path / name).is_file() for name in _folder_files()):
            raise CheckpointError(
                f"{path} is an artifact, which weights cannot be taken back from",
                fix="give the checkpoint that it was exported from",
            )
        return path
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is neither a file nor a folder", fix="give a checkpoint, as a file or a folder")
    if not path.is_file() and str(path) in SCALE_CONFIGS:
        raise CheckpointError(
            f"there is no file {path}, and no scale is taken here",
            fix=f"make a file of it: vit-deploy build {path} -o {path}.keras",
        )
    if not path.is_file():
        folder = path.parent
        names = (
            [file.name for file in sorted(folder.glob("*")) if file.name.endswith(SUFFIXES)] if folder.is_dir() else []
        )
        meant = closest(path.name, [*names, *SCALE_CONFIGS])
        where = f"the checkpoints in {folder} are {', '.join(names)}" if names else f"{folder} holds no checkpoint"
        raise CheckpointError(
            f"there is no file {path}",
            fix=f"{meant and f'{meant} '}{where}; the scales are {', '.join(SCALE_CONFIGS)}",
        )
    return path


def detected_container(path: Path) -> str:
    """The key in `CONTAINERS`, by the file's first bytes.

    Raises:
        CheckpointError: it is no container that is known.
    """
    try:
        with path.open("rb") as file:
            start = file.read(START_BYTES)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
    if start.startswith(ZIP):
        return _kind_of_zip(path)
    if start.startswith(H5):
        return "h5"
    if start[8:9] == b"{":
        return "safetensors"
    if start.startswith(PICKLES):  # after safetensors, whose first bytes are a length that can look like one
        return "torch"
    if known := not_weights(path, start):
        raise known
    suffixes = {suffix for format in FORMATS.of_artifacts().values() for suffix in format.suffixes}
    if path.suffix in {*suffixes, *(Path(name).suffix for name in _folder_files())}:
        raise CheckpointError(
            f"{path} is an artifact, which weights cannot be taken back from",
            fix="give the checkpoint that it was exported from",
        )
    raise CheckpointError(
        f"{path} is no checkpoint: it begins like none of {', '.join(SUFFIXES)}",
        fix="if its name is right, the file is damaged: get it again",
    )


def _kind_of_zip(path: Path) -> str:
    """The kind of a zip, by the names in it; a damaged one is left to the container that its suffix speaks for."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return OF_ZIPS.get(path.suffix, "keras")
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return "torch"
    return "npz" if any(name.endswith(".npy") for name in names) else OF_ZIPS.get(path.suffix, "keras")


def _folder_files() -> list[str]:
    """The files by which models are known that are folders."""
    return [format.folder_file for format in FORMATS.of_artifacts().values() if format.folder_file]
