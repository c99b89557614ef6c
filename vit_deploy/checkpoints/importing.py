"""The config of a foreign checkpoint, resolved from its shapes, the file beside it, the user, and defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.checkpoints.assumed import SUPPOSED, Assumed
from vit_deploy.checkpoints.source import Stated
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError, ConfigError

HEAD_WIDTH = 64  # of every published ViT from tiny to large


@dataclass(frozen=True)
class Facts:
    """Fields of the config, by what they are known from; earlier ones win, and the first three must not differ.

    Args:
        shapes: what names and shapes of the tensors say.
        beside: what the config beside the weights says.
        defaults: what the dialect's program does unless told otherwise.
    """

    shapes: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settled:
    """A config, and those of its fields that nobody stated.

    Args:
        config: complete.
        assumed: defaults that were taken, in plain JSON values.
        problems: what two that know a field say differently, for `gather` to list with all else that is wrong.
        input_size: (height, width) that the user states for the images, where the patches do not divide it.
    """

    config: ViTConfig
    assumed: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    input_size: tuple[int, int] | None = None


def settle(facts: Facts, stated: Stated) -> Settled:
    """The config of a foreign checkpoint; where two say different things, by the first who knows.

    Args:
        facts: what the file and its dialect say.
        stated: what the user says.

    Raises:
        ConfigError: no ViT has these options.
    """
    if stated.get("activation") == Activation.LEAKY_RELU and "activation" not in facts.shapes:
        raise ConfigError(
            "the activation stated is a leaky_relu of slope 0.2, as Keras has it; programs with such files have 0.01",
            fix="say leaky_relu_0.01, or another activation",
        )
    fields: dict[str, Any] = {}
    problems = []
    input_size = None
    patch = facts.shapes.get("patch_size")
    if patch is not None and stated.get("image_size") is not None:
        input_size = as_pair(stated["image_size"], "image_size")
        stated = {**stated, "image_size": without_rest(input_size, patch)}
    known = {"its weights": facts.shapes, "the config beside it": facts.beside, "the config given": stated}
    for who, values in known.items():
        for name, value in values.items():
            plain = _plain(value)
            if name in fields and fields[name][1] != plain:
                problems.append(f"{name} is {fields[name][1]} by {fields[name][0]} and {plain} by {who}")
            fields.setdefault(name, (who, plain))
    assumed = {name: _plain(value) for name, value in facts.defaults.items() if name not in fields}
    try:
        config = ViTConfig.from_dict({name: value for name, (_, value) in fields.items()} | assumed)
    except ConfigError as error:
        raise ConfigError("; ".join([*problems, error.message]), fix=error.fix) from error
    return Settled(config, assumed, tuple(problems), None if input_size == config.image_size else input_size)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def default_heads(embed_dim: int) -> dict[str, int]:
    """The number of heads of the usual width, as a default; none where that does not go.

    Raises:
        CheckpointError: the embed dim is no multiple of it.
    """
    if embed_dim % HEAD_WIDTH:
        return {}
    return {"num_heads": embed_dim // HEAD_WIDTH}


def image_size_of(num_patches: int, patch_size: tuple[int, int], candidates: Iterable[object]) -> tuple[int, int]:
    """(height, width) in pixels of the images that a position table of `num_patches` is for.

    Args:
        num_patches: rows of the table that belong to patches.
        patch_size: (height, width) in pixels.
        candidates: sizes that the config beside the weights or the user names, best first; those that do not make
            as many patches are passed over, and None.

    Raises:
        CheckpointError: no candidate fits, and the patches make no square.
    """
    for size in candidates:
        if size is None:
            continue
        height, width = without_rest(as_pair(size, "image_size"), patch_size)
        if (height // patch_size[0]) * (width // patch_size[1]) == num_patches:
            return (height, width)
    side = math.isqrt(max(num_patches, 0))
    if side < 1 or side * side != num_patches:
        raise CheckpointError(
            f"its position table is for {num_patches} patches, which make no square, and no image size is known that "
            f"has as many patches of {patch_size[0]}x{patch_size[1]}",
            fix='give the size it was made for: --config FILE.json with {"image_size": [height, width]}',
        )
    return (side * patch_size[0], side * patch_size[1])


def without_rest(size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels without what is left of whole patches: a convolution reads from the top left."""
    return (size[0] - size[0] % patch[0], size[1] - size[1] % patch[1])


def imported(
    settled: Settled,
    weights: Mapping[str, Float32],
    *,
    family: str,
    preprocess: Preprocess | None = None,
    preprocess_assumed: bool = False,
    input_size: tuple[int, int] | None = None,
    labels: tuple[str, ...] = (),
    supposed: Sequence[Assumed] = (),
    **facts: Any,
) -> Checkpoint:
    """The checkpoint, with what is known of where it comes from.

    Args:
        settled: its config.
        weights: the result of `gather`.
        family: name of the resizing convention of the program it comes from, see `resize.Convention`.
        preprocess: None takes the usual one.
        preprocess_assumed: whether it is the family's own, since the files do not say it.
        input_size: (height, width) of the images that the config is for, with what its patches leave unread; None takes
            what the user states.
        labels: left out where their number is not that of the classes.
        supposed: assumptions about what the config and the preprocessing do not name.
        **facts: more about its origin, in plain JSON values; `left_out` lists parts of the file that are not used.
    """
    config = settled.config
    fitting = labels if config.include_top and len(labels) == config.num_classes else ()
    usual = Preprocess.for_channels(config.channels)
    whole = input_size or settled.input_size or config.image_size
    known = preprocess is not None and not preprocess_assumed
    taken = {} if known else _told(preprocess or usual, whole)
    more = {SUPPOSED: [assumption.to_dict() for assumption in supposed]} if supposed else {}
    step = Step("import", {"family": family, **facts, "assumed": {**settled.assumed, **taken}, **more})
    made = dataclasses.replace(preprocess or usual, input_size=None if whole == config.image_size else whole)
    return Checkpoint(config, weights, made, fitting, (step,))


def _told(preprocess: Preprocess, size: tuple[int, int]) -> dict[str, Any]:
    """What a preprocessing does to make images of a size, in plain JSON values; one number for channels that agree."""
    done = dataclasses.replace(preprocess, resize=preprocess.resize or size)
    values = {name: value for name, value in done.to_dict().items() if value not in (None, False)}
    same = {name: values[name][0] for name in ("mean", "std") if len(set(values[name])) == 1}
    return values | same


def alone(config: ViTConfig, weights: Mapping[str, Float32]) -> Checkpoint:
    """The checkpoint of canonical weights that nothing else came with, with the usual preprocessing."""
    usual = Preprocess.for_channels(config.channels)
    step = Step("import", {"assumed": _told(usual, config.image_size)})
    return Checkpoint(config, weights, usual, provenance=(step,))


@contextmanager
def known_heads(facts: Facts, stated: Stated, embed_dim: int) -> Iterator[None]:
    """Refuse a checkpoint whose number of heads nobody knows, together with what else is found to be unknown inside.

    Raises:
        ConfigError: neither file nor user say it, and the embed dim is no multiple of the usual width.
        CheckpointError: as inside.
    """
    said = any("num_heads" in fields for fields in (facts.shapes, facts.beside, stated, facts.defaults))
    unknown = f"nothing says how many heads it has, and its embed dim {embed_dim} is no multiple of {HEAD_WIDTH}"
    fix = 'give a --config with {"num_heads": …}'
    try:
        yield
    except CheckpointError as error:
        if said:
            raise
        raise CheckpointError(f"{error.message}; {unknown}", fix="; ".join(filter(None, (error.fix, fix)))) from error
    if not said:
        raise ConfigError(unknown, fix=fix)
