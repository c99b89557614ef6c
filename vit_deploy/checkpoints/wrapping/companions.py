"""Tensors that stand beside an encoder in files of trainings, and that no output of it depends on."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

from vit_deploy.checkpoints.source import KEY_END
from vit_deploy.checkpoints.wrapping.models import common_prefix
from vit_deploy.errors import CheckpointError

# By what they are; searched in names outside of the encoder.
BESIDE: Mapping[str, re.Pattern[str]] = {
    what: re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)")
    for what, pattern in {
        "weights of a loss": r"(?:\w+_)?(?:criterion|loss|losses|loss_fn|loss_func|criteria)(?:_fn)?",
        "metrics": r"(?:\w+_)?metrics?"
        r"|(?:train|val|valid|test|best)_(?:acc|accuracy|auroc|f1|precision|recall|loss|top|metric|score|prec)\w*",
        "a projection head": r"projector|projection_head|proj_head|dino_head|ibot_head|contrastive_head|prototypes"
        r"|head\.mlp\.\d+|head\.last_layer|mlp_head_contrastive",
        "a predictor": r"predictor",
        "counters of a training": r"n_averaged|num_updates|global_step|epoch|step|iteration|queue|queue_ptr|center"
        r"|initted",
        "pixel statistics": r"(?:pixel_|image_|input_)(?:mean|std)",
    }.items()
}
BESIDE_A_PART: Mapping[str, re.Pattern[str]] = {
    what: re.compile(rf"(?:^|\.)(?:{pattern})(?:\.|$)")
    for what, pattern in {
        "a decoder": r"decoder(?:_\w+)?",
        "a mask token": r"mask_token",
        "a scale of logits": r"logit_(?:scale|bias)",
    }.items()
}
"""Likewise, where the encoder is a part of a model that no dialect has; dialects know their own."""

OF_DIALECTS = ("vit", "deit", "dinov2", "dinov2_with_registers", "ijepa", "vision_model", "visual")
"""What dialects themselves call the encoder in their models."""

WITHIN: Mapping[str, re.Pattern[str]] = {
    "counters of a training": re.compile(r"(?:^|\.)num_batches_tracked$"),
    "a projection head": re.compile(r"(?:^|\.)fc\.(?:fc|bn)\d\."),  # MSN's
}
"""Likewise, searched in all names."""

CONTRASTED = ("base_encoder", "momentum_encoder", "encoder_q", "encoder_k")  # of MoCo, whose head is a projection
OF_CONTRASTED = re.compile(r"head\.\d+\.")
LISTED = 8  # names shown of one kind


def companions(names: Iterable[str], root: str) -> dict[str, str]:
    """What each companion of an encoder is, by its name.

    Args:
        names: of all tensors of a state dict.
        root: what the names of the encoder begin with.
    """
    found: dict[str, str] = {}
    last = root.rstrip(".").rpartition(".")[2]
    contrasted = last in CONTRASTED
    outside = (WITHIN, BESIDE) if not root or last in OF_DIALECTS else (WITHIN, BESIDE, BESIDE_A_PART)
    for name in names:
        inside = bool(root) and name.startswith(root)
        tables = (WITHIN,) if inside else outside
        if contrasted and inside and OF_CONTRASTED.match(name, len(root)):
            found[name] = "a projection head"
        elif what := next((what for table in tables for what, kind in table.items() if kind.search(name)), None):
            found[name] = what
    return found


def ignored(names: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Names that a user's patterns leave out.

    A pattern is for whole names with the keys before them, for names as they are in their state dict, or without what
    all of these begin with, which is how messages have them; where none is so, for the ends of names.

    Args:
        names: as the file has them.
        patterns: with `*` for any characters.

    Raises:
        CheckpointError: a pattern that leaves out nothing.
    """
    known = list(names)
    found: dict[str, set[str]] = {pattern: set() for pattern in patterns}
    if not patterns:
        return set()
    alone = [name.rpartition(KEY_END)[2] for name in known]
    common = common_prefix(alone)
    for pattern in patterns:
        for name, inner in zip(known, alone, strict=True):
            forms = (name.replace(KEY_END, "."), inner, inner.removeprefix(common))
            if any(fnmatch.fnmatchcase(form, pattern) for form in forms):
                found[pattern].add(name)
        found[pattern] |= {name for name in known if not found[pattern] and fnmatch.fnmatchcase(name, f"*.{pattern}")}
    if idle := [pattern for pattern, held in found.items() if not held]:
        first = ", ".join(name.replace(KEY_END, ".") for name in known[:4])
        raise CheckpointError(
            f"--ignore {', '.join(idle)} is of no tensor; the first are {first}",
            fix="correct the pattern, with * for any characters, or leave it out",
        )
    return {name for held in found.values() for name in held}


def in_words(found: Mapping[str, str]) -> list[str]:
    """What is left out, each kind with its names."""
    kinds: dict[str, list[str]] = {}
    for name, what in found.items():
        kinds.setdefault(what, []).append(name)
    return [f"{what} ({_listed(names)})" for what, names in kinds.items()]


def _listed(names: Sequence[str]) -> str:
    """Names, or what many of them begin with."""
    if len(names) <= 3:
        return ", ".join(names)
    beginnings = list(dict.fromkeys(f"{name.rpartition('.')[0]}.*" if "." in name else name for name in names))
    if len(beginnings) > LISTED:
        beginnings = list(dict.fromkeys(f"{name.partition('.')[0]}.*" if "." in name else name for name in names))
    more = [f"and {len(beginnings) - LISTED} more"] if len(beginnings) > LISTED else []
    return ", ".join([*beginnings[:LISTED], *more])
