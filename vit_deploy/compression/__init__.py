"""Methods that make a trained ViT smaller or ready for integers, and their options."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.suggestions import did_you_mean
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ConfigError, MissingEngineError

NEEDS = ("tensorflow", "keras", "tf_keras", "tensorflow_model_optimization")

METHODS = Registry(
    "method",
    {
        "prune": Plugin("vit_deploy.compression.prune:Prune", extra="compress", needs=NEEDS),
        "cluster": Plugin("vit_deploy.compression.cluster:Cluster", extra="compress", needs=NEEDS),
        "qat": Plugin("vit_deploy.compression.qat:Qat", extra="compress", needs=NEEDS),
    },
)


OWN: Mapping[str, tuple[str, ...]] = {
    "prune": ("sparsity", "schedule", "pattern"),
    "cluster": ("clusters", "centroids"),
}
"""Options of one method alone."""

HALF = 0.5  # sparsity of two of four
USUAL = 0.0  # stands for what a method usually has
LEARNING_RATES = {"prune": 5e-4, "cluster": 5e-4, "qat": 1e-4}
"""In int8 little is lost that could be learned back: ViTs trained on digits drift away from the original's answers to
held-out images with more than this."""


class Schedule(StrEnum):
    """How the sparsity grows while a model is pruned: all at once, or by the cubic of Zhu and Gupta 2017."""

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
    """What may be done to a training image; see `compress.augment`."""

    CROP = "crop"
    FLIP = "flip"
    RANDAUGMENT = "randaugment"
    MIXUP = "mixup"


@dataclass(frozen=True)
class CompressOptions:
    """What is asked for.

    Args:
        method: name in `METHODS`.
        sparsity: fraction of each kernel's values that become zero; of `prune`.
        schedule: the schedule of the sparsity.
        pattern: the pattern of the zeros; `2:4` has a sparsity of its own, one half.
        clusters: distinct values that are left of each kernel; of `cluster`.
        centroids: how shared values are initialised.
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

    method: str
    sparsity: float = 0.6
    schedule: Schedule = Schedule.POLYNOMIAL
    pattern: Pattern = Pattern.ANY
    clusters: int = 16
    centroids: Centroids = Centroids.KMEANS
    keep: tuple[str, ...] = ()
    epochs: int = 20
    batch: int = 64
    learning_rate: float = USUAL
    weight_decay: float = 1e-4
    warmup: float = 0.1
    patience: int = 8
    distill: float = 0.9
    temperature: float = 2.0
    augment: tuple[Augmentation, ...] = (Augmentation.CROP,)
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _ = METHODS[self.method]
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
        known = [each for each in self.augment if str(each) in list(Augmentation)]
        problems += [
            f"augment is {str(each)!r}; expected some of {', '.join(Augmentation)}"
            for each in self.augment
            if each not in known
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
            ("temperature", 0 < self.temperature <= 100, "more than 0 and at most 100"),
            ("held_out", 0 < self.held_out < 1, "more than 0 and less than 1"),
            ("seed", self.seed >= 0, "a number from 0"),
        )
        return [f"{name} is {getattr(self, name)}; expected {expected}" for name, ok, expected in limits if not ok]

    def _of_others(self) -> list[str]:
        """What was asked for and would do nothing."""
        usual = {each.name: each.default for each in dataclasses.fields(self)}
        problems = [
            f"{name} is of {method}, and the method is {self.method}"
            for method, names in OWN.items()
            for name in names
            if method != self.method and getattr(self, name) != usual[name]
        ]
        if self.pattern is Pattern.TWO_OF_FOUR and self.sparsity not in (usual["sparsity"], HALF):
            problems.append(f"sparsity is {self.sparsity}; with the pattern 2:4 it is {HALF}")
        return problems

    def layers(self, config: ViTConfig) -> tuple[str, ...]:
        """Names of the layers that are compressed.

        Raises:
            ConfigError: a name or pattern to keep that is no layer's, or that leaves nothing.
        """
        names = layer_names(config)
        if unknown := [each for each in self.keep if not fnmatch.filter(names, each)]:
            raise ConfigError(f"no such layers: {', '.join(unknown)}", fix=did_you_mean(unknown[0], names))
        chosen = tuple(name for name in names if not any(fnmatch.fnmatchcase(name, each) for each in self.keep))
        if not chosen:
            raise ConfigError("every layer is kept as it is", fix="keep fewer")
        return chosen

    def facts(self) -> dict[str, Any]:
        """What the provenance says of it: the method and its own options, in plain JSON values."""
        values = self.to_dict()
        names = (*OWN.get(self.method, ()), "keep", "distill", "seed")
        return {"method": self.method, **{name: values[name] for name in names if values[name] != []}}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = dataclasses.asdict(self)
        lists = {"keep": list(self.keep), "augment": [str(each) for each in self.augment]}
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in plain.items()} | lists

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CompressOptions:
        """The inverse of `to_dict`."""
        return cls(**{**values, "keep": tuple(values["keep"]), "augment": tuple(values["augment"])})


def check(method: str) -> None:
    """Whether what the method needs is installed.

    Raises:
        ConfigError: there is no such method.
        MissingEngineError: it is not; the fix does not let pip put a second TensorFlow beside the first.
    """
    missing = METHODS[method].missing()
    if not missing:
        return
    if "tensorflow" in missing or "keras" in missing:
        fix = 'pip install "vit-deploy[cpu]", and then see this message again'
    else:
        release = ".".join(_tensorflow_version().split(".")[:2])
        fix = (
            f'pip install --no-deps "tf_keras=={release}.*" tensorflow-model-optimization dm-tree "absl-py~=1.2" six '
            "(all of the extra vit-deploy[compress]; without --no-deps, pip adds the package tensorflow, whose files "
            "are also those of tensorflow-cpu)"
        )
    raise MissingEngineError(f"the method {method!r} needs {', '.join(missing)}, which is not installed", fix=fix)


def _tensorflow_version() -> str:
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "2.21"
