"""The source of every dialect that is a ViT under names of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.checkpoints.gathering import gather
from vit_deploy.checkpoints.importing import Facts, default_heads, imported, known_heads, settle, without_rest
from vit_deploy.checkpoints.renamed.names import (
    Common,
    Known,
    Table,
    common,
    origins_of,
    positions_of,
    shapes_of,
)
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.resize import OF_THE_SIZE, resized_preprocess
from vit_deploy.errors import CheckpointError

CONTAINERS = ("safetensors", "torch", "npz")
NOTHING = Known()
COLORS = 3


@dataclass(frozen=True)
class Dialect:
    """A program's names for the parts of a ViT, and what it does that names do not say.

    Args:
        name: the name of the program, in the provenance and in messages.
        mark: matches the name of the patches' kernel, after a group `prefix` for what is around the encoder.
        names: patterns of its names and the common ones, in order; see `renamed.names`.
        heads: found in the names of a head's tensors.
        epsilon: the epsilon of its norms.
        beside: names of which, after the same prefix, one must be there too; none where the mark is enough.
        outside: patterns of its names around the encoder, such as those of a head.
        activation: the activation of its feed-forward.
        num_heads: by embed dim, where its published models have heads of another width than 64.
        preprocess: the preprocess of its published models, for a config; None takes the usual one.
        left_out: what the function does not depend on, by patterns of common names.
        refused: what no ViT here computes, likewise.
        fix: what to do where something is refused.
        known: looks into the file for what else it says.
        pools_as_named: whether a class token means that it is what is taken.
        placed: whether the class token has a row in the position table.
        biasless: parts that may do without a bias, see `names.origins_of`.
        table: computes the positions where the file has none.
        flattened: whether the patches' kernel is a matrix over pixels (row, column, channel).
    """

    name: str
    mark: re.Pattern[str]
    names: Sequence[tuple[str, str]]
    heads: re.Pattern[str]
    epsilon: float
    beside: Sequence[str] = ()
    outside: Sequence[tuple[str, str]] = ()
    activation: Activation = Activation.GELU
    num_heads: Mapping[int, int] = field(default_factory=dict)
    preprocess: Callable[[ViTConfig], Preprocess] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    fix: str = "give a ViT without it"
    known: Callable[[Common, Stated], Known] = lambda view, stated: NOTHING
    pools_as_named: bool = True
    placed: bool = True
    biasless: Collection[str] = ()
    table: Callable[[Common], Table | None] = lambda view: None
    flattened: Callable[[Common, Stated], tuple[int, int] | None] = lambda view, stated: None


@dataclass(frozen=True)
class RenamedSource:
    """A `Source` of one such dialect."""

    dialect: Dialect

    @property
    def heads(self) -> re.Pattern[str]:
        """Found in the names of a head's tensors."""
        return self.dialect.heads

    def detects(self, file: TensorFile) -> bool:
        """By the name of the patches' kernel, and by what is beside it where that is not enough."""
        if file.container not in CONTAINERS:
            return False
        names = frozenset(file.names())
        prefixes = [found["prefix"] for name in names if (found := self.dialect.mark.match(name))]
        beside = self.dialect.beside or ("",)
        marked = any(not name or prefix + name in names for prefix in prefixes for name in beside)
        # Only then is what may be anybody's file read; a model type is of transformers.
        return marked and "model_type" not in (file.documents.get("config.json") or {})

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint; what the names cannot say is the program's own default, and is told as assumed."""
        dialect = self.dialect
        view = common(file, dialect.mark, dialect.names, dialect.outside)
        known = dialect.known(view, stated)
        _refuse(dialect, view, known)
        flattened = dialect.flattened(view, stated)
        shapes = {**shapes_of(view, flattened), **known.shapes}
        pooling = _pooling(shapes, stated)
        fixed = {**(pooling if dialect.pools_as_named else {}), **known.fixed}
        heads = dialect.num_heads.get(shapes["embed_dim"])
        defaults: dict[str, Any] = {
            **({"num_heads": heads} if heads else default_heads(shapes["embed_dim"])),
            "epsilon": dialect.epsilon,
            "activation": dialect.activation,
            **pooling,
            **known.defaults,
        }
        if flattened:  # the shape says how many numbers a patch has, and no more
            defaults |= {name: shapes.pop(name) for name in ("patch_size", "channels")}
        facts = Facts(shapes, fixed, defaults)
        said = stated.get("image_size")
        table = dialect.table(view)
        with known_heads(facts, stated, shapes["embed_dim"]):
            sizes = [said] if said else known.sizes
            prefix, image_size, sure = _positions(view, {**defaults, **shapes}, table, sizes, dialect.placed)
        (shapes if sure else defaults)["image_size"] = image_size
        settled = settle(facts, stated)
        config = settled.config
        unused = {what: _matching(view, pattern) for pattern, what in dialect.left_out.items()}
        weights = gather(
            view,
            {**origins_of(view, config, prefix, table, dialect.biasless), **known.origins},
            config,
            ignored=frozenset(name for names in unused.values() for name in names),
            found=settled.problems,
        )
        recorded = known.preprocess or (dialect.preprocess if config.channels == COLORS else None)
        whole = _whole(known.sizes, config) or settled.input_size or config.image_size
        preprocess = recorded and resized_preprocess(recorded(config), config.image_size, whole)
        return imported(
            settled,
            weights,
            family="timm",
            preprocess=preprocess,
            input_size=whole,
            preprocess_assumed=known.preprocess is None,
            supposed=known.supposed(config),
            dialect=dialect.name,
            **({} if table is None else OF_THE_SIZE),
            left_out=[what for what, names in unused.items() if names],
        )


def _whole(sizes: Sequence[Any], config: ViTConfig) -> tuple[int, int] | None:
    """(height, width) of the images that the file says, of which the patches may leave some pixels unread."""
    said = [as_pair(size, "image_size") for size in sizes]
    return next((size for size in said if without_rest(size, config.patch_size) == config.image_size), None)


def _refuse(dialect: Dialect, view: Common, known: Known) -> None:
    problems = list(known.refused)
    for pattern, what in dialect.refused.items():
        if found := _matching(view, pattern):
            problems.append(f"{what} ({view.stored[found[0]]})")
    if problems:
        raise CheckpointError(
            f"it is a ViT of {dialect.name} that has {'; '.join(problems)}, which vit-deploy does not compute",
            fix=known.fix or dialect.fix,
        )


def _matching(view: Common, pattern: str) -> list[str]:
    return [name for name in view.names() if re.search(pattern, name)]


def _pooling(shapes: Mapping[str, Any], stated: Stated) -> dict[str, Any]:
    """The class token where there is one; a file without its head gives the same vector, unless another is stated."""
    if "pooling" in stated:
        return {}
    return {"pooling": Pooling.CLS if shapes["class_token"] else Pooling.MEAN}


def _positions(
    view: Common, shapes: Mapping[str, Any], table: Table | None, sizes: Sequence[Any], placed: bool
) -> tuple[int, tuple[int, int], bool]:
    if table is None:
        return positions_of(view, shapes, sizes, placed=placed)
    if not sizes:
        raise CheckpointError(
            "its positions are computed for the image size, and nothing says that size",
            fix='give the size it was made for: --config FILE.json with {"image_size": [height, width]}',
        )
    return 0, without_rest(as_pair(sizes[0], "image_size"), shapes["patch_size"]), True
