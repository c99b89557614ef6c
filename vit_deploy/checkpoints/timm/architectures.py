"""The architectures of timm by name: what each computes that its weights do not show, and which of them can be read.

The table beside this file is written by `tests/peers/make_timm_architectures.py`, from the library itself. A name that
is not in it is refused: it may have the same weights and compute something else with them.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from vit_deploy.core.choices import (
    Activation,
    FFNType,
    NormalizationPosition,
    NormalizationType,
    Pooling,
    RelativePositions,
)
from vit_deploy.errors import CheckpointError

TABLE = "architectures.csv"
HIDDEN = ("num_heads", "epsilon", "activation", "normalization_position")  # fields of the config no weights show
LISTED = 3  # architectures that a message names


@dataclass(frozen=True)
class Architecture:
    """One architecture, as timm makes it unless arguments say otherwise.

    Args:
        name: timm's name, without the tag of the weights.
        needs: what it computes that no config here can say, in words; empty where it can be read.
        traits: which tensors it has, see `traits_of`; empty where its weights are refused by their names.
        patch_size: (height, width) in pixels.
        image_size: (height, width) in pixels.
        embed_dim: width of a token.
        num_layers: encoder blocks.
        mlp_dim: hidden units of the feed-forward.
        num_heads: attention heads.
        epsilon: the epsilon of its norms.
        activation: the activation of its feed-forward.
        pooling: the pooling of its tokens.
        pools_prefix: whether the pooling takes the prefix tokens too.
        normalization_position: of its norms in a block.
    """

    name: str
    needs: str
    traits: str
    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    embed_dim: int
    num_layers: int
    mlp_dim: int
    num_heads: int
    epsilon: float
    activation: Activation
    pooling: Pooling | None
    pools_prefix: bool
    normalization_position: NormalizationPosition

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the config that its weights do not show."""
        return {name: getattr(self, name) for name in HIDDEN}

    @property
    def unread(self) -> int:
        """How many pixels of its images, at most of a side, are left of whole patches."""
        sides = zip(self.image_size, self.patch_size, strict=True)
        return max(side % of if of else 0 for side, of in sides)

    @property
    def hidden(self) -> tuple[object, ...]:
        """All that can differ between architectures of the same weights."""
        return (self.needs, *self.fields.values(), self.pooling, self.pools_prefix)


def traits_of(shapes: Mapping[str, Any]) -> str:
    """Which kinds of tensors there are, of those that architectures differ in: `class+layer_scale`."""
    registers, relative = shapes["register_tokens"], shapes.get("relative_positions", RelativePositions.NONE)
    traits = {
        "class": shapes["class_token"],
        "distillation": shapes["distillation_token"],
        f"registers{registers}": registers,
        "pre_norm": shapes["pre_norm"],
        "layer_scale": shapes["layer_scale"],
        "fc_norm": shapes["norm_after_pooling"],
        "map": shapes.get("pooling") is Pooling.MAP,
        "gated": shapes["ffn_type"] is FFNType.SWIGLU,
        "rms": shapes["normalization_type"] is NormalizationType.RMS_NORM,
        "no_qkv_bias": not shapes["qkv_bias"],
        "qk_norm": shapes["qk_norm"],
        "parallel": shapes.get("normalization_position") is NormalizationPosition.PARALLEL,
        "patch_norm": shapes.get("patch_norm", False),
        "attention_norm": shapes.get("attention_norm", False),
        "ffn_norm": shapes.get("ffn_norm", False),
        str(relative): relative is not RelativePositions.NONE,
    }
    return "+".join(name for name, there in traits.items() if there) or "plain"


@functools.cache
def architectures() -> tuple[Architecture, ...]:
    """Every row of the table; a name has several where it can be made with other tensors."""
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return tuple(map(_architecture, csv.DictReader(text.splitlines())))


def _architecture(row: Mapping[str, str]) -> Architecture:
    numbers = {name: int(row[name]) for name in ("embed_dim", "num_layers", "mlp_dim", "num_heads")}
    return Architecture(
        name=row["name"],
        needs=row["needs"],
        traits=row["traits"],
        patch_size=_pair(row["patch_size"]),
        image_size=_pair(row["image_size"]),
        epsilon=float(row["epsilon"]),
        activation=Activation(row["activation"]),
        pooling=Pooling(row["pooling"]) if row["pooling"] else None,
        pools_prefix=row["pools_prefix"] == "yes",
        normalization_position=NormalizationPosition(row["normalization_position"]),
        **numbers,
    )


def _pair(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


def architecture_named(name: str) -> Architecture | None:
    """The architecture of this name, without the tag of its weights; None if the table has none."""
    wanted = name.partition(".")[0]
    return next((known for known in architectures() if known.name == wanted), None)


def alike(found: Iterable[Architecture], shapes: Mapping[str, Any]) -> tuple[Architecture, ...]:
    """Those whose tensors have these shapes, but for head and positions; of as many blocks where there are such."""
    same = ("patch_size", "embed_dim", "mlp_dim")
    wide = [known for known in found if all(getattr(known, name) == shapes[name] for name in same)]
    deep = [known for known in wide if known.num_layers == shapes["num_layers"]]
    return tuple(deep or wide)


def of_these_names(shapes: Mapping[str, Any]) -> tuple[Architecture, ...]:
    """The architectures whose tensors have the names of these."""
    traits = traits_of(shapes)
    return tuple(known for known in architectures() if known.traits == traits)


def listed(found: Iterable[Architecture], than: Architecture | None) -> str:
    """Names with what they are other in, in words.

    Args:
        found: the architectures.
        than: that they are compared with; None lists what they need, or their activation.
    """
    groups: dict[str, list[str]] = {}
    for known in found:
        groups.setdefault(_difference(known, than), []).append(known.name)
    words = []
    for difference, names in groups.items():
        unique = list(dict.fromkeys(names))
        more = f" and {len(unique) - LISTED} more" if len(unique) > LISTED else ""
        words.append(f"{', '.join(unique[:LISTED])}{more} ({difference})")
    return ", ".join(words)


def _difference(one: Architecture, other: Architecture | None) -> str:
    if one.needs or other is None:
        return one.needs or f"activation {one.activation}"
    differing = [
        f"{value} heads" if name == "num_heads" else f"{name} {value}"
        for name, value in one.fields.items()
        if other.fields[name] != value
    ]
    differing += [f"pooling {one.pooling}"] if one.pooling != other.pooling else []
    differing += ["images of {}x{}".format(*one.image_size)] if one.unread else []
    return ", ".join(differing)


def unsupported(what: str, problems: list[str]) -> CheckpointError:
    """The error of a model that is another network."""
    return CheckpointError(
        f"{what} is not a ViT that vit-deploy knows: it has {'; '.join(problems)}",
        fix="supported are timm's VisionTransformer with plain blocks, and its distilled DeiT; if it is one of them "
        "under a name of its own, say timm's name: --architecture NAME",
    )
