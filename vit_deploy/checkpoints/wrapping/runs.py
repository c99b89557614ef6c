"""Folders that trainings and hubs leave: which of their files is the obvious one, and which hold no whole model.

timm, Lightning, the Trainer of transformers and mmpretrain write one file after the other and say in a name or in a
small file which was best or last; the cache of a hub keeps a folder for each revision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.checkpoints.paths import SUFFIXES
from vit_deploy.errors import CheckpointError

MAX_TEXT_BYTES = 1 << 20
LISTED = 12

# What lies beside weights and holds none.
NO_WEIGHTS = re.compile(
    r"(optimizer|optim|scheduler|scaler|training_args|rng_state(_\d+)?|random_states_\d+|arguments|args|latest_optimizer"
    r"|lr_scheduler)\.\w+$"
)
BEST = re.compile(r"(.*[-_.])?best([-_.].*)?$")
LAST = re.compile(r"(last|latest)(\.|_checkpoint|-v\d)?.*$")
POINTER = "last_checkpoint"  # mmengine's text with the path of the last file
OF_THE_TRAINER = re.compile(r"checkpoint-(\d+)$")
TRAINER_STATE = "trainer_state.json"
# Where runs keep their files, best first.
INSIDE = (
    *("checkpoint-*", "checkpoints", "checkpoint", "weights", "ckpt", "ckpts"),
    *("lightning_logs/version_*/checkpoints", "version_*/checkpoints", "*/checkpoints"),
)
HUB_FOLDER = "models--"
# Files of a model in pieces, by what wrote them, with the way to one file.
PIECES: tuple[tuple[str, str, str], ...] = (
    (
        r"(.*zero_pp_rank_\d+_.*_states\.pt|mp_rank_\d+_optim_states\.pt|zero_to_fp32\.py|global_step\d+)$",
        "DeepSpeed's checkpoint, whose weights are in pieces",
        "put them together: python zero_to_fp32.py . pytorch_model.bin, and give that file",
    ),
    (
        r"(.*\.distcp|pytorch_model_fsdp_\d+|\.metadata)$",
        "a distributed checkpoint of PyTorch (FSDP), whose weights are in pieces",
        "put them together: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pth",
    ),
)
OTHER_KINDS: tuple[tuple[str, str, str], ...] = (
    (
        r".*\.msgpack$",
        "weights of Flax",
        "save them for PyTorch with transformers 4: from_pretrained(FOLDER, from_flax=True).save_pretrained(…)",
    ),
    (
        r"(tf_model\.h5|.*\.ckpt\.index|.*\.data-\d{5}-of-\d{5})$",
        "weights of TensorFlow",
        "save them for PyTorch with transformers 4: from_pretrained(FOLDER, from_tf=True).save_pretrained(…)",
    ),
    (r".*\.gguf$", "a GGUF file, whose weights are quantized for llama.cpp", "get the weights that it was made of"),
)


@dataclass(frozen=True)
class Taken:
    """A file of weights, and how it was found.

    Args:
        path: of the file.
        why: it was taken of several, in words; empty where it is the only one.
        others: what else there was to take.
    """

    path: Path
    why: str = ""
    others: tuple[str, ...] = ()


def weights_of_run(folder: Path, files: Sequence[Path]) -> Taken | None:
    """The obvious file of a run; None where there is nothing of the kind.

    Args:
        folder: of the run.
        files: those in it that can be weights.

    Raises:
        CheckpointError: a model in pieces or of another kind, or several files of which none is the obvious one.
    """
    unusual = [NO_WEIGHTS.pattern, *(pattern for pattern, _, _ in (*PIECES, *OTHER_KINDS))]
    files = [file for file in files if not any(re.match(pattern, file.name) for pattern in unusual)]
    if found := _among(files):
        return found
    if pieces := _kind(folder, PIECES):
        raise pieces
    if not files and (other := _kind(folder, OTHER_KINDS)):
        raise other
    return None


def folder_of_run(folder: Path) -> Taken | None:
    """The folder inside a run, or inside a hub's cache, that holds its weights; None where there is none.

    Raises:
        CheckpointError: several, of which none is the obvious one.
    """
    if (snapshots := folder / "snapshots").is_dir():
        return _snapshot(folder, snapshots)
    models = sorted(entry for entry in folder.glob(f"{HUB_FOLDER}*") if (entry / "snapshots").is_dir())
    if models:
        return _only(folder, models, "models of a hub")
    for pattern in INSIDE:
        found = sorted(entry for entry in folder.glob(pattern) if entry.is_dir() and _holds_files(entry))
        if found:
            return _last_of_trainer(found) or _only(folder, found, "folders of checkpoints")
    return None


def _among(files: Sequence[Path]) -> Taken | None:
    """The only file, else the only best one, else the one that is said to be the last."""
    if not files:
        return None
    if len(files) == 1:
        return Taken(files[0])
    for pattern, why in ((BEST, "the best of the run"), (LAST, "the last of the run")):
        found = [file for file in files if pattern.match(file.name.partition(".")[0]) or pattern.match(file.name)]
        if len(found) == 1:
            return Taken(found[0], why, tuple(file.name for file in files if file is not found[0]))
    pointed = Path(_text(files[0].parent / POINTER).strip()).name
    if found := [file for file in files if file.name == pointed]:
        return Taken(found[0], "the last of the run", tuple(file.name for file in files if file is not found[0]))
    return None


def _last_of_trainer(folders: Sequence[Path]) -> Taken | None:
    """The folder that the Trainer's state calls the best, where there are several."""
    if len(folders) < 2 or not all(OF_THE_TRAINER.match(folder.name) for folder in folders):
        return None
    last = max(folders, key=lambda entry: int(entry.name.rpartition("-")[2]))
    try:
        best = json.loads(_text(last / TRAINER_STATE) or "{}")
    except (ValueError, RecursionError):
        return None
    said = best.get("best_model_checkpoint") if isinstance(best, dict) else None
    found = [folder for folder in folders if isinstance(said, str) and folder.name == Path(said).name]
    others = tuple(folder.name for folder in folders if folder not in found)
    return Taken(found[0], "the best of the run", others) if found else None


def _snapshot(folder: Path, snapshots: Path) -> Taken | None:
    """The revision that `refs/main` names, else the only one."""
    found = sorted(snapshot for snapshot in snapshots.iterdir() if snapshot.is_dir())
    named = _text(folder / "refs" / "main").strip()
    for snapshot in found:
        if snapshot.name == named:
            return Taken(snapshot, "the revision main", tuple(other.name for other in found if other != snapshot))
    return _only(folder, found, "revisions") if found else None


def _only(folder: Path, found: Sequence[Path], what: str) -> Taken:
    if len(found) == 1:
        return Taken(found[0])
    listed = [str(entry.relative_to(folder)) for entry in found]
    more = [f"and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
    raise CheckpointError(
        f"{folder} is a folder that holds several {what}", fix=f"give one of {', '.join([*listed[:LISTED], *more])}"
    )


def _holds_files(folder: Path) -> bool:
    return any(entry.name.endswith((*SUFFIXES, ".index.json")) for entry in _entries(folder))


def _kind(folder: Path, kinds: Sequence[tuple[str, str, str]]) -> CheckpointError | None:
    names = [entry.name for entry in _entries(folder)]
    for pattern, what, fix in kinds:
        found = [name for name in names if re.match(pattern, name)]
        if found:
            return CheckpointError(f"{folder} holds {what} ({', '.join(found[:3])})", fix=fix)
    return None


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:  # a folder that may not be entered
        return


def _text(path: Path) -> str:
    """What a small text file says; nothing where it is not there."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_TEXT_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
