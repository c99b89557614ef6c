"""Models in one file of weights: where each begins, and which is taken where there are several.

Several copies of one model are a training's: the averaged one is taken before the others, a teacher before its
student, a target before what is trained after it, the best before the last. Among others the usual keys count; what no
rule decides is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.source import KEY_END, TensorFile
from vit_deploy.errors import CheckpointError

# The patch embedding of every dialect, with what is in front of it.
STEM = re.compile(
    r"(?P<root>(?:[^\x1d]*?\.)??)"
    r"(?:patch_embed\.(?!kernel|bias$)|(?:transformer\.)?embeddings\.patch_embeddings?\.|patch_embedding\.|conv_proj\.|to_patch_embedding\."
    r"|conv1\.weight$|preprocessor\.patchifier\.)"
)
OF_CLIP = "conv1.weight"  # which convolutional networks have as well
BESIDE_CLIP = ("class_embedding", "ln_pre.weight")  # and a ViT alone, the latter in Perception Encoder
USUAL = (
    *("state_dict", "model_state_dict", "model", "module", "net", "net_state", "weights", "network", "params"),
    *("encoder", "backbone"),
)
RANKS: Mapping[str, int] = {
    **dict.fromkeys(("ema", "averaged", "averager", "average", "avg", "swa", "shadow"), 0),
    "teacher": 1,
    **dict.fromkeys(("target", "best"), 2),
    **dict.fromkeys(("student", "online", "momentum", "k", "raw"), 4),
}
"""Before (or, from 4, after) what is called otherwise, by a word of the key."""

PARTS = ("embeddings", "patch_embed", "blocks", "layers")  # of a ViT, where all else may be missing
OF_IMAGES = ("vision", "image", "visual")
UNNAMED = "(no key)"  # in place of the key of a model whose names begin with nothing
NEUTRAL = 3
AVERAGED = 0


@dataclass(frozen=True)
class Model:
    """One model in a file.

    Args:
        keys: that lead to its state dict.
        root: what the names of its encoder begin with there, up to a point, or nothing.
        names: of the tensors of the state dict, without the keys, to their names in the file.
        known: whether there is a patch embedding, behind the root.
    """

    keys: tuple[str, ...]
    root: str
    names: Mapping[str, str]
    known: bool = True

    @property
    def label(self) -> str:
        """Keys and root as one path."""
        return ".".join([*self.keys, *self.root.split(".")[:-1]])


@dataclass(frozen=True)
class Choice:
    """Which model is taken of a file.

    Args:
        model: that one.
        key: by which it is chosen; empty where it is the only one.
        others: keys of those that are passed over.
        averaged: whether its numbers are means over a training.
        apart: beginnings of names in its state dict that belong to others.
        within: what all names in its state dict that belong to it begin with.
    """

    model: Model
    key: str = ""
    others: tuple[str, ...] = ()
    averaged: bool = False
    apart: tuple[str, ...] = ()
    within: str = ""

    def owns(self, name: str) -> bool:
        """Whether a tensor of the state dict is not another model's."""
        return name.startswith(self.within) and not (self.apart and name.startswith(self.apart))

    @property
    def facts(self) -> dict[str, Any]:
        """For the provenance; empty where there was no choice."""
        if not self.key or not (self.others or self.averaged):
            return {}
        return {"key": self.key, "averaged": self.averaged, "others": list(self.others)}


def models_in(names: Iterable[str]) -> list[Model]:
    """All models of which there is a patch embedding; if none has one, every state dict.

    A state dict that is spread over nested dictionaries is put together.
    """
    stored = list(names)
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    joined: dict[str, str] = {}
    for name in stored:
        *keys, last = name.split(KEY_END)
        groups.setdefault(tuple(keys), {})[last] = name
        joined[".".join([*keys, last])] = name
    models = [Model(keys, root, held) for keys, held in groups.items() for root in _roots(held)]
    models = models or [Model((), root, joined) for root in _roots(joined)]
    return models or [Model(keys, "", held, known=False) for keys, held in groups.items()]


def _roots(names: Mapping[str, str]) -> list[str]:
    """What the names of each encoder begin with, outer ones first."""
    matches = ((name, match["root"]) for name in names if (match := STEM.match(name)))
    found = {
        root
        for name, root in matches
        if not name.endswith(OF_CLIP) or any(f"{root}{part}" in names for part in BESIDE_CLIP)
    }
    return sorted(found, key=lambda root: (len(root), root))


def common_prefix(names: Iterable[str]) -> str:
    """What all names begin with, in whole parts, none of which is a number."""
    paths = [name.split(".")[:-1] for name in names]
    common: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1 or parts[0].isdecimal() or parts[0] in PARTS:
            break
        common.append(parts[0])
    return "".join(f"{part}." for part in common)


def chosen(file: TensorFile, models: Sequence[Model], wanted: str | None, tower: str | None = None) -> Choice:
    """The model that is wanted, else the documented one.

    Args:
        file: that holds the models.
        models: all of them.
        wanted: the key of one of them.
        tower: a part of the path of those that are meant.

    Raises:
        CheckpointError: a key that none has or several have, or several models of which nothing says which is meant.
    """
    keys = _keys(models)
    if tower is not None:
        return _choice(models, keys, _of_tower(models, keys, tower))
    if wanted is not None:
        model = _wanted(models, keys, wanted)
        return _choice(models, keys, model)
    if len(models) == 1:
        return _choice(models, keys, models[0])
    first, *rest = sorted(models, key=lambda candidate: _rank(candidate, keys[id(candidate)]))
    if all(_comes_first(file, first, other, keys) for other in rest):
        return _choice(models, keys, first)
    raise CheckpointError(
        f"it holds several models: {', '.join(keys[id(candidate)] or UNNAMED for candidate in models)}",
        fix="say which with --weights KEY, or leave others out with --ignore 'KEY.*'",
    )


def _comes_first(file: TensorFile, first: Model, other: Model, keys: Mapping[int, str]) -> bool:
    """Whether a rule says that one is taken and not the other: they are copies, or one is the other's part."""
    ranks = [_rank(candidate, keys[id(candidate)]) for candidate in (first, other)]
    if ranks[0] == ranks[1]:
        return first.keys == other.keys and other.root.startswith(first.root)
    usual = first.keys != other.keys and any(key in USUAL for key in first.keys)
    return usual or _extent(file, first) == _extent(file, other)


def _choice(models: Sequence[Model], keys: Mapping[int, str], model: Model) -> Choice:
    others = [candidate for candidate in models if candidate is not model]
    apart = tuple(filter(None, (_apart(other, model) for other in others)))
    within = max((_within(other, model) for other in others), key=len, default="")
    if len(models) == 1:
        key = next((key for key in model.keys if AVERAGED in _ranks([key])), "")
        return Choice(model, key, (), bool(key))
    averaged = AVERAGED in _ranks([*model.keys, *model.root.split(".")])
    listed = tuple(keys[id(other)] or UNNAMED for other in others)
    return Choice(model, keys[id(model)] or UNNAMED, listed, averaged, apart, within)


def _within(other: Model, model: Model) -> str:
    """What the names of a copy begin with that is kept inside of another model, with a head of its own beside it."""
    path, ours = other.root.split(".")[:-1], model.root.split(".")[:-1]
    if other.keys != model.keys or len(ours) <= len(path):
        return ""
    same = next((at for at, part in enumerate(ours) if path[at : at + 1] != [part]), len(ours))
    return "".join(f"{part}." for part in ours[: same + 1]) if _ranks(ours[same : same + 1]) else ""


def _apart(other: Model, model: Model) -> str:
    """What the names of another model in the same state dict begin with, where those of this one do not."""
    if other.keys != model.keys or model.root.startswith(other.root):
        return ""
    path, ours = other.root.split("."), model.root.split(".")
    same = next((at for at, part in enumerate(path) if ours[at : at + 1] != [part]), len(path))
    return "".join(f"{part}." for part in path[: same + 1] if part)


def _keys(models: Sequence[Model]) -> dict[int, str]:
    """Of each model the shortest path that tells it from the others: without what all begin and end with."""
    paths = [model.label.split(".") if model.label else [] for model in models]
    if len(models) == 1:
        return {id(models[0]): models[0].label}
    start = 0
    while all(len(path) > start + 1 and path[start] == paths[0][start] for path in paths):
        start += 1
    # The end of a path says which wrapper it is in, where its keys tell the models apart already.
    told = [[*model.keys][start:] for model in models]
    if len({tuple(words) for words in told}) == len(models) and all(told):
        return {id(model): ".".join(words) for model, words in zip(models, told, strict=True)}
    end = 0
    while all(len(path) - end > start + 1 and path[-1 - end] == paths[0][-1 - end] for path in paths):
        end += 1
    return {id(model): ".".join(path[start : len(path) - end]) for model, path in zip(models, paths, strict=True)}


def _wanted(models: Sequence[Model], keys: Mapping[int, str], wanted: str) -> Model:
    """By its key, else by what its path begins with, else by a part of it."""
    found = [model for model in models if wanted in (keys[id(model)], model.label)]
    found = found or [model for model in models if f"{model.label}.".startswith(f"{wanted.rstrip('.')}.")]
    found = found or [model for model in models if wanted in model.label.split(".")]
    if len(found) == 1:
        return found[0]
    if len(models) == 1 and not models[0].label:
        raise CheckpointError(
            f"none of its models is called {wanted}: it holds one alone, without a key", fix="leave --weights out"
        )
    listed = ", ".join(keys[id(model)] or UNNAMED for model in models)
    raise CheckpointError(
        f"{'several of its models are' if found else 'none of its models is'} called {wanted}; they are {listed}",
        fix="give --weights one of these, or leave it out",
    )


def _of_tower(models: Sequence[Model], keys: Mapping[int, str], tower: str) -> Model:
    """By a part of its path; where there is one encoder of images alone, it is `vision` whatever it is called."""
    found = [model for model in models if tower in model.label]
    if not found and len(models) == 1 and tower in OF_IMAGES:
        return models[0]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(keys[id(model)] or "the model itself" for model in models)
    raise CheckpointError(
        f"{len(found) or 'none'} of its encoders of images {'are' if len(found) > 1 else 'is'} called {tower}; "
        f"they are {listed}",
        fix="give --tower a part of one of these, or leave it out",
    )


def _rank(model: Model, key: str) -> tuple[tuple[int, ...], int]:
    ranks = _ranks(key.split("."))
    usual = next((USUAL.index(key) for key in model.keys if key in USUAL), len(USUAL))
    return tuple(ranks) or (NEUTRAL,), usual if not ranks else 0


def _ranks(segments: Iterable[str]) -> list[int]:
    words = [word for segment in segments for word in re.split(r"[^a-z]+", segment.lower())]
    return sorted(RANKS[word] for word in words if word in RANKS)


def _extent(file: TensorFile, model: Model) -> tuple[list[tuple[int, ...]], int]:
    """What copies of one model have in common: the shapes of the patch embedding, and the number of the last block."""
    inside = [name for name in model.names if name.startswith(model.root)]
    matches = ((name, STEM.match(name)) for name in inside)
    stem = sorted(file.shape(model.names[name]) for name, match in matches if match and match["root"] == model.root)
    numbers = [int(part) for name in inside for part in name.split(".") if part.isdecimal() and len(part) < 7]
    return stem, max(numbers, default=0)
