"""Options of everything that compresses a model through training."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import positive
from vit_deploy.errors import ConfigError, did_you_mean

MAIN, TRAINING = "Options", "Training"  # headings of the help

OWN: Mapping[str, tuple[str, ...]] = {
    "prune": ("sparsity", "schedule", "pattern"),
    "cluster": ("clusters", "centroids"),
    "shrink": ("speedup", "keep_heads", "keep_mlp", "keep_layers", "distill_tokens", "schedule"),
}
"""Options of one method or two alone."""

HALF = 0.5  # sparsity of two of four
USUAL = 0.0  # stands for what a method usually has
NO_SPEEDUP = 0.0  # where it is said what stays
KEEPS = ("keep_heads", "keep_mlp", "keep_layers")
LEARNING_RATES = {"prune": 5e-4, "cluster": 5e-4, "qat": 1e-4, "shrink": 1e-3}
"""In int8 little is lost that could be learned back: ViTs trained on digits drift away from the original's answers to
held-out images with more than this."""


class Schedule(StrEnum):
    """How the sparsity grows, or the sizes fall, in training: all at once, or by the cubic of Zhu and Gupta 2017."""

    CONSTANT = "constant"
    POLYNOMIAL = "polynomial"


class Pattern(StrEnum):
    """The kernel values that may be zero: any, or two of four consecutive inputs (NVIDIA's sparse cores)."""

    ANY = "any"
    TWO_OF_FOUR = "2:4"


class Centroids(StrEnum):
    """Where the clusters of a kernel start."""

    KMEANS = "kmeans++"
    LINEAR = "linear"
    DENSITY = "density"
    RANDOM = "random"


class Augmentation(StrEnum):
    """What may be done to a training image; see `compression.augment`."""

    CROP = "crop"
    FLIP = "flip"
    RANDAUGMENT = "randaugment"
    MIXUP = "mixup"


def kept(text: str) -> float:
    """A whole number from "3", or a fraction from "0.5".

    Raises:
        ValueError: anything else.
    """
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    value = positive(text)
    if "." not in text or value > 1:
        raise ValueError("a number as 3 or a fraction as 0.5")
    return value


def _can_stay(asked: float | None) -> bool:
    if asked is None:
        return True
    return asked >= 1 if isinstance(asked, int) else 0 < asked <= 1


def augmentations(text: str) -> tuple[str, ...]:
    """Names joined by commas; none of "none"."""
    return () if text == "none" else tuple(text.replace(" ", "").split(","))


@panel("The method")
@dataclass(frozen=True)
class CompressOptions:
    """What is asked for.

    Args:
        method: name in `compression.METHODS`.
        sparsity: fraction of each kernel's values that become zero; of `prune`.
        schedule: the schedule of the sparsity, or of the sizes of `shrink`.
        pattern: the pattern of the zeros; `2:4` has a sparsity of its own, one half.
        clusters: distinct values that are left of each kernel; of `cluster`.
        centroids: how shared values are initialised.
        speedup: by how much the multiply-adds are to be fewer, of `shrink`; 0 where it is said what stays.
        keep_heads: heads of each block that stay, a number or, with a point, a fraction; None for all.
        keep_mlp: hidden units of each block that stay, likewise.
        keep_layers: blocks that stay, likewise.
        distill_tokens: weight of the distance from the original's tokens behind each block that stays.
        keep: layers that are left alone, by name or pattern, such as `head` or `block_0.*`.
        epochs: passes over the images, at most.
        batch: images a step.
        learning_rate: the learning rate of AdamW, at the end of the warm-up; `USUAL` becomes that of `LEARNING_RATES`.
        weight_decay: the weight decay of AdamW, for kernels.
        warmup: fraction of all steps.
        patience: epochs without a better answer on the held-out images, after which training ends; 0 for never.
        distill: share of the loss that is the distance from the uncompressed model's answers, 0 to 1.
        temperature: that both models' answers are softened by (Hinton et al. 2015).
        augment: what is done to the training images.
        held_out: fraction of the images that is not trained on, where no others are given for that.
        seed: the seed of the split, the order and the augmentation.

    Raises:
        ConfigError: values that cannot be; the message lists all.
    """

    method: Annotated[
        str,
        Option(
            metavar="METHOD",
            help=f"One of {', '.join(LEARNING_RATES)}.",
            parse=str,
            values=tuple(LEARNING_RATES),
            panel=MAIN,
        ),
    ]
    sparsity: Annotated[float, Option(help="prune: fraction of zeros.")] = 0.6
    schedule: Annotated[
        Schedule,
        Option(
            help="prune, shrink: polynomial or constant.",
            parse=str,
            values=tuple(Schedule),
            show_default="polynomial",
        ),
    ] = Schedule.POLYNOMIAL
    pattern: Annotated[
        Pattern,
        Option(
            help="prune: any, or 2:4 along the inputs (half are zeros).",
            parse=str,
            values=tuple(Pattern),
            show_default="any",
        ),
    ] = Pattern.ANY
    clusters: Annotated[int, Option(help="cluster: values a kernel.")] = 16
    centroids: Annotated[
        Centroids,
        Option(
            help="cluster: kmeans++, linear, density or random.",
            parse=str,
            values=tuple(Centroids),
            show_default="kmeans++",
        ),
    ] = Centroids.KMEANS
    speedup: Annotated[
        float, Option(metavar="X", help="shrink: 1.5 for two thirds of the multiply-adds.", parse=positive)
    ] = NO_SPEEDUP
    keep_heads: Annotated[
        float | None, Option(metavar="N|X", help="shrink: heads a block that stay, as 4 or 0.7.", parse=kept)
    ] = None
    keep_mlp: Annotated[
        float | None, Option(metavar="N|X", help="shrink: hidden units that stay, likewise.", parse=kept)
    ] = None
    keep_layers: Annotated[
        float | None, Option(metavar="N|X", help="shrink: blocks that stay, likewise.", parse=kept)
    ] = None
    keep: Annotated[
        tuple[str, ...],
        Option(metavar="LAYER", help="Leave alone, as head or block_0.*; repeat for more.", commas=True),
    ] = ()
    epochs: Annotated[int, Option(help="At most.", panel=TRAINING)] = 20
    batch: Annotated[int, Option(help="Images a step.", panel=TRAINING)] = 64
    learning_rate: Annotated[
        float,
        Option(
            names=("--lr",),
            metavar="X",
            help="Of AdamW, after the warm-up; 1e-4 for qat, 1e-3 for shrink, else 5e-4.",
            parse=positive,
            panel=TRAINING,
        ),
    ] = USUAL
    weight_decay: Annotated[float, Option(help="Of AdamW.", panel=TRAINING)] = 1e-4
    warmup: Annotated[float, Option(help="Fraction of all steps.", panel=TRAINING)] = 0.1
    patience: Annotated[int, Option(help="Epochs without gain until it ends; 0 for never.", panel=TRAINING)] = 8
    distill: Annotated[float, Option(help="Share of the loss that follows the original's answers.", panel=TRAINING)] = (
        0.9
    )
    distill_tokens: Annotated[
        float, Option(help="shrink: weight of the distance from the original's tokens.", panel=TRAINING)
    ] = 1.0
    temperature: Annotated[float, Option(help="Of both models' answers.", panel=TRAINING)] = 2.0
    augment: Annotated[
        tuple[Augmentation, ...],
        Option(
            metavar="NAME,…",
            help="crop, flip, randaugment, mixup, with commas; or none.",
            parse=augmentations,
            values=(*Augmentation, "none"),
            show_default="crop",
            panel=TRAINING,
        ),
    ] = (Augmentation.CROP,)
    held_out: float = 0.2
    seed: Annotated[int, Option(min=0, help="Of everything random.", panel=TRAINING)] = 0

    def __post_init__(self) -> None:
        if self.method not in LEARNING_RATES:
            raise ConfigError(f"unknown method {self.method!r}", fix=did_you_mean(self.method, LEARNING_RATES))
        object.__setattr__(self, "keep", tuple(self.keep))
        object.__setattr__(self, "learning_rate", self.learning_rate or LEARNING_RATES[self.method])
        problems = [*self._settle_choices(), *self._unsound_numbers(), *self._of_others()]
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def _settle_choices(self) -> list[str]:
        problems = []
        for name, kind in (("schedule", Schedule), ("pattern", Pattern), ("centroids", Centroids)):
            value = str(getattr(self, name))
            if value in list(kind):
                object.__setattr__(self, name, kind(value))
            else:
                problems.append(f"{name} is {value!r}; expected one of {', '.join(kind)}")
        known = [kind for kind in self.augment if str(kind) in list(Augmentation)]
        problems += [
            f"augment is {str(kind)!r}; expected some of {', '.join(Augmentation)}"
            for kind in self.augment
            if kind not in known
        ]
        object.__setattr__(self, "augment", tuple(dict.fromkeys(map(Augmentation, known))))
        return problems

    def _unsound_numbers(self) -> list[str]:
        limits = (
            ("sparsity", 0 < self.sparsity < 1, "more than 0 and less than 1"),
            ("clusters", 2 < self.clusters <= 256, "3 to 256"),
            ("epochs", self.epochs > 0, "a positive number"),
            ("batch", self.batch > 0, "a positive number"),
            ("learning_rate", 0 < self.learning_rate < 1, "more than 0 and less than 1"),
            ("weight_decay", 0 <= self.weight_decay < 1, "0 to 1"),
            ("warmup", 0 <= self.warmup < 1, "0 to 1"),
            ("patience", self.patience >= 0, "a number from 0"),
            ("distill", 0 <= self.distill <= 1, "0 to 1"),
            ("speedup", self.speedup == NO_SPEEDUP or 1 < self.speedup <= 100, "more than 1 and at most 100"),
            *((name, _can_stay(getattr(self, name)), "a number from 1, or a fraction up to 1.0") for name in KEEPS),
            ("distill_tokens", 0 <= self.distill_tokens <= 100, "0 to 100"),
            ("temperature", 0 < self.temperature <= 100, "more than 0 and at most 100"),
            ("held_out", 0 < self.held_out < 1, "more than 0 and less than 1"),
            ("seed", self.seed >= 0, "a number from 0"),
        )
        return [f"{name} is {getattr(self, name)}; expected {expected}" for name, ok, expected in limits if not ok]

    def _of_others(self) -> list[str]:
        """What was asked for and would do nothing."""
        usual = {option.name: option.default for option in dataclasses.fields(self)}
        problems = [
            f"{name} is of {method}, and the method is {self.method}"
            for method, names in OWN.items()
            for name in names
            if name not in OWN.get(self.method, ()) and getattr(self, name) != usual[name]
        ]
        if self.method == "shrink":
            problems += self._of_sizes()
        if self.pattern is Pattern.TWO_OF_FOUR and self.sparsity not in (usual["sparsity"], HALF):
            problems.append(f"sparsity is {self.sparsity}; with the pattern 2:4 it is {HALF}")
        return problems

    def _of_sizes(self) -> list[str]:
        asked = [name for name in KEEPS if getattr(self, name) is not None]
        problems = [f"keep is {', '.join(self.keep)}; of shrink, say what stays with --keep-layers"] * bool(self.keep)
        if self.speedup and asked:
            said = ", ".join(f"{name} {getattr(self, name)}" for name in asked)
            problems.append(f"speedup is {self.speedup} and {said}; expected one or the other")
        if not self.speedup and not asked:
            problems.append("shrink needs a speedup, or what stays as keep_heads, keep_mlp or keep_layers")
        return problems

    def layers(self, config: ViTConfig) -> tuple[str, ...]:
        """Names of the layers that are compressed.

        Raises:
            ConfigError: a name or pattern to keep that is no layer's, or that leaves nothing.
        """
        from vit_deploy.core.weights import layer_names  # which brings NumPy

        names = layer_names(config)
        if unknown := [pattern for pattern in self.keep if not fnmatch.filter(names, pattern)]:
            raise ConfigError(f"no such layers: {', '.join(unknown)}", fix=did_you_mean(unknown[0], names))
        chosen = tuple(name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.keep))
        if not chosen:
            raise ConfigError("every layer is kept as it is", fix="keep fewer")
        return chosen

    def facts(self) -> dict[str, Any]:
        """What the provenance says of it: the method and its own options, in plain JSON values."""
        values = self.to_dict()
        names = (*OWN.get(self.method, ()), "keep", "distill", "seed")
        unsaid: dict[str, Any] = {"keep": [], "speedup": NO_SPEEDUP, **dict.fromkeys(KEEPS)}
        return {
            "method": self.method,
            **{name: values[name] for name in names if values[name] != unsaid.get(name, ...)},
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = dataclasses.asdict(self)
        lists = {"keep": list(self.keep), "augment": [str(kind) for kind in self.augment]}
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in plain.items()} | lists

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompressOptions:
        """The inverse of `to_dict`."""
        return cls(**{**values, "keep": tuple(values["keep"]), "augment": tuple(values["augment"])})
