"""The files of a repository that a checkpoint is read from."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vit_deploy.checkpoints.folder import ADAPTERS, BACKBONE_FILE, HEAD_FILES, INDEX_SUFFIX, SHARD, WEIGHT_FILES
from vit_deploy.checkpoints.hub.card import CARD
from vit_deploy.checkpoints.hub.names import Name
from vit_deploy.checkpoints.paths import SUFFIXES
from vit_deploy.checkpoints.wrapping.runs import NO_WEIGHTS
from vit_deploy.errors import HubError, closest

# What sources read beside weights; everything else in a repository stays there.
DOCUMENTS = (
    *("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json"),
    *("adapter_config.json", "task.json", "preprocessor.json", "image_converter.json", "metadata.json"),
)
OF_TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("vocab.json", "merges.txt", "spiece.model"),
)
ADAPTER_CONFIG = "adapter_config.json"
BEST_SUFFIX = ".safetensors"  # which is taken before others
LISTED = 12


@dataclass(frozen=True)
class Needed:
    """What is fetched, by names in the repository.

    Args:
        path: the file to read: weights, or the index of their shards.
        small: the card and what is read beside weights, the index among it.
        weights: files of weights; of an index none, since its shards are known when it has come.
    """

    path: str
    small: tuple[str, ...]
    weights: tuple[str, ...]


def needed(name: Name, files: Collection[str], *, words: bool = False) -> Needed:
    """The files that a model takes of those that its repository has.

    Args:
        name: the model.
        files: of its repository.
        words: whether its texts are read, for which it takes a tokenizer's files.

    Raises:
        HubError: no such file, no weights, or several of which none is the usual one.
    """
    path = name.file or _weights(name, files)
    if path not in files:
        meant = closest(path, [file for file in files if file.endswith(SUFFIXES)])
        raise HubError(
            f"{name.repository} has no file {path} at {name.revision}",
            fix=f"{meant and f'{meant} '}{_has(name, files)}",
        )
    folder = PurePosixPath(path).parent
    documents = (*DOCUMENTS, *OF_TOKENIZERS) if words else DOCUMENTS
    beside = {str(folder / name): name for name in (*documents, *ADAPTERS, *HEAD_FILES)}
    there = [full for full in beside if full in files and full != path]
    small = [full for full in there if beside[full] in documents]
    weights = [] if path.endswith(INDEX_SUFFIX) else [path]
    if any(beside[full] == ADAPTER_CONFIG for full in small):
        weights += [full for full in there if beside[full] in ADAPTERS][:1]
    if PurePosixPath(path).name == BACKBONE_FILE:
        weights += [full for full in there if beside[full] == HEAD_FILES[0]]
    card = [CARD] if CARD in files else []
    index = [path] if path.endswith(INDEX_SUFFIX) else []
    return Needed(path, tuple(dict.fromkeys((*card, *small, *index))), tuple(weights))


def shards(name: Name, index: Path, path: str) -> tuple[str, ...]:
    """Names in the repository of the shards that an index lists; empty for a damaged one, which its reader tells.

    Args:
        name: the model.
        index: the file that has been fetched.
        path: its name in the repository.
    """
    try:
        listed = json.loads(index.read_bytes()).get("weight_map", {})
        found = dict.fromkeys(map(str, listed.values()))
    except (ValueError, AttributeError, RecursionError):
        return ()
    return tuple(str(PurePosixPath(path).parent / name) for name in found if "/" not in name and name not in ("", ".."))


def _weights(name: Name, files: Collection[str]) -> str:
    """The usual file of weights at the top of a repository, else the only one, else the only safetensors."""
    top = [file for file in files if "/" not in file]
    if usual := next((file for file in WEIGHT_FILES if file in top), None):
        return usual
    found = [name for name in sorted(top) if name.endswith(SUFFIXES) and not NO_WEIGHTS.match(name)]
    found = [name for name in found if name not in ADAPTERS and not SHARD.fullmatch(name)]
    best = [name for name in found if name.endswith(BEST_SUFFIX)]
    for several in (found, best):
        if len(several) == 1:
            return several[0]
    what = "several files of weights" if found else "no weights that are read here"
    raise HubError(f"{name.repository} has {what}", fix=_has(name, files))


def _has(name: Name, files: Collection[str]) -> str:
    """What a user can give instead."""
    weights = [file for file in sorted(files) if file.endswith(SUFFIXES) and not NO_WEIGHTS.match(file)]
    if not weights:
        listed = ", ".join(sorted(files)[:LISTED]) or "nothing"
        return f"it holds {listed}; give a repository with weights in {', '.join(SUFFIXES)}"
    more = f" and {len(weights) - LISTED} more" if len(weights) > LISTED else ""
    return f"give one of {', '.join(map(name.with_file, weights[:LISTED]))}{more}"


def in_folder(folder: Path) -> Mapping[str, Path]:
    """Files of a snapshot in a cache, by their names in the repository."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}
