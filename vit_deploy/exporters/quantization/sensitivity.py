"""The cost of quantizing each layer, and the fewest layers to keep in float for a target."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.publish import Progress
from vit_deploy.exporters.quantization import QuantizeOptions, Quantizer
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.labelled import Labelled, read_labelled
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.quantization.recipes import LAYERS, Part, Recipe, quantizable

FILE = "sensitivity.json"

Images = NDArray[Any] | Labelled


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to quantize one layer alone.

    Args:
        layer: its name, of those that `recipes.quantizable` gives.
        cosine: smallest cosine of any image's output with fp32.
        agreement: fraction of images with fp32's first class; None for features.
    """

    layer: str
    cosine: float
    agreement: float | None


Sensitivities = tuple[Sensitivity, ...]
"""From the most to the least sensitive layer."""


@dataclass(frozen=True, eq=False)
class Budget:
    """What a model with some layers in float has to reach.

    Args:
        images: `(n, height, width, channels)` as a session takes them, or batches of them.
        labels: class of each; None where the cosine with fp32 counts.
        min_cosine: smallest of any image's.
        max_drop: points of top-1.
    """

    images: Images
    labels: NDArray[np.int64] | None
    min_cosine: float | None
    max_drop: float | None

    @classmethod
    def of(cls, source: Artifact, options: QuantizeOptions, images: Calibration) -> Budget | None:
        """What was asked for, if anything.

        Raises:
            DataError: labelled images that cannot be used.
        """
        if options.max_drop is not None and options.data is not None:
            labelled = read_labelled(options.data, source)
            return cls(labelled, labelled.classes, None, options.max_drop)
        if options.min_cosine is not None:
            return cls(images.images, None, options.min_cosine, None)
        return None

    def figure(self, outputs: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
        """What is held to the limit: the smallest cosine, or the points of top-1 that are lost."""
        if self.labels is None:
            return float(cosines(outputs, exact).min())
        right, before = (float((logits.argmax(axis=-1) == self.labels).mean()) for logits in (outputs, exact))
        return 100 * (before - right)

    def in_words(self, figure: float) -> str:
        """What was reached, of what was asked for."""
        if self.max_drop is not None:
            on = f"on {len(self.images)} labelled images"
            return f"loses {figure:.2f} points of top-1 {on}, of {self.max_drop:g} allowed"
        on = f"on {len(self.images)} images"
        return f"has a smallest cosine of {figure:.6f} with fp32 {on}, {self.min_cosine:g} asked for"

    def to_dict(self, figure: float) -> dict[str, float | int | None]:
        """The same for JSON."""
        return {
            "max_drop": self.max_drop,
            "min_cosine": self.min_cosine,
            "reached": figure,
            "images": len(self.images),
        }

    def met(self, figure: float) -> bool:
        """Whether that is good enough."""
        if self.max_drop is not None:
            return figure <= self.max_drop + 1e-9
        return self.min_cosine is not None and figure >= self.min_cosine


@dataclass(frozen=True, eq=False)
class Work:
    """One artifact to quantize.

    Args:
        quantizer: the quantizer of the source's format.
        source: the fp32 artifact.
        recipe: the recipe that is followed.
        images: the images to calibrate with and to compare outputs on.
        progress: called with what is being done.
    """

    quantizer: Quantizer
    source: Artifact
    recipe: Recipe
    images: Calibration
    progress: Progress

    @property
    def calibration(self) -> Calibration | None:
        """The images, where the recipe needs them to calibrate."""
        return self.images if self.recipe.needs_calibration else None

    def keeping(self, layers: Sequence[str]) -> Work:
        """The same with these layers in float."""
        return dataclasses.replace(self, recipe=dataclasses.replace(self.recipe, keep_float=tuple(layers)))

    def write(self, target: Artifact) -> Artifact:
        """Have the quantizer write it; where products are computed in 16 bits, their size is measured on the images."""
        measured = self.images if self.recipe.computes_in_half else self.calibration
        return self.quantizer.write(self.source, target, self.recipe, measured)

    def answers(self, images: Images) -> NDArray[np.float32]:
        """The outputs of a file that is made for this and dropped."""
        with tempfile.TemporaryDirectory() as folder:
            target = dataclasses.replace(
                self.source, directory=Path(folder), precision=self.recipe.precision, files={}, model=""
            )
            return answers(self.write(target), images)


def measure_layers(work: Work) -> Sensitivities:
    """Quantize each layer alone, and compare the answers with fp32's; layers that stay in float are left out.

    Alone means that norms, softmax and all else that is neither a layer nor a product stay in float too, in precisions
    that have them in fewer bits. The products of an attention count as a layer where they become integers.
    """
    images = work.images.images
    parts = work.recipe.parts & {*LAYERS, Part.ATTENTION_PRODUCTS}
    work = dataclasses.replace(work, recipe=dataclasses.replace(work.recipe, parts=parts, integer_io=False))
    exact = answers(work.source, images)
    everything = quantizable(work.recipe, work.source.config)
    layers = [name for name in everything if name not in work.recipe.keep_float]
    found = []
    for index, layer in enumerate(layers):
        work.progress(f"{work.recipe.precision}: measuring layer {index + 1} of {len(layers)}, {layer}")
        outputs = work.keeping([name for name in everything if name != layer]).answers(images)
        agreement = None
        if work.source.gives_classes:
            agreement = float((outputs.argmax(axis=-1) == exact.argmax(axis=-1)).mean())
        found.append(Sensitivity(layer, float(cosines(outputs, exact).min()), agreement))
    return tuple(sorted(found, key=lambda row: row.cosine))


def keep_fewest(work: Work, table: Sensitivities, budget: Budget) -> Work:
    """The work with the fewest of the most sensitive layers in float that meets the budget.

    More layers in float are taken to be no worse, so that halving finds how many it takes.

    Raises:
        ConfigError: not even all layers in float meet it.
    """
    exact = answers(work.source, budget.images)

    def keeping(count: int) -> Work:
        return work.keeping([*work.recipe.keep_float, *(row.layer for row in table[:count])])

    def figure(count: int) -> float:
        work.progress(f"{work.recipe.precision}: trying with {count} of {len(table)} layers in float")
        return budget.figure(keeping(count).answers(budget.images), exact)

    if budget.met(figure(0)):
        return work
    low, high = 0, len(table)
    if not budget.met(best := figure(high)):
        asked = f"--min-cosine {budget.min_cosine}" if budget.labels is None else f"--max-drop {budget.max_drop}"
        raise ConfigError(
            f"{work.recipe.precision} does not reach {asked} even with every layer in float: it gives {best:.6g}",
            fix="ask for less, or for another precision",
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if budget.met(figure(middle)) else (middle, high)
    return keeping(high)


def write_sensitivities(table: Sensitivities, folder: Path) -> None:
    """Save the table in an artifact."""
    text = json.dumps([dataclasses.asdict(row) for row in table], indent=2)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")
