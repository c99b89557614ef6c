"""Exporters and their options: a checkpoint becomes artifacts, each proven before it is published."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.image_sizes import ImageSize, signature_of
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.options.tensorrt import PlanOptions as PlanOptions
from vit_deploy.core.registry import Registry
from vit_deploy.core.resampling import Filter
from vit_deploy.core.resize import FILTERS, Convention, convention_of
from vit_deploy.errors import ConfigError

EXPORTERS = Registry("format", lambda: FORMATS.plugins(lambda format: format.exporter))
COMPILERS = Registry("format", lambda: FORMATS.plugins(lambda format: format.compiler))
"""Formats whose files are compiled for one kind of hardware, of the file of another format in the same precision."""

OPSETS = range(17, 22)
USUAL_OPSET = 20
PIXEL_VALUES = "pixel_values"  # what transformers.js calls its models' input


@dataclass(frozen=True)
class ExportOptions:
    """What the file should look like, besides the function it computes.

    Args:
        batch: images a call; None leaves it open. TFLite takes a number.
        opset: the opset of ONNX, 17 to 21.
        layout: the layout of ONNX's input, "nhwc" or "nchw".
        include_preprocessing: the input is then uint8 pixels; scaling, mean and standard deviation are inside.
        target: what an ONNX file is made for; transformers.js takes `pixel_values` in NCHW.
        dynamic_size: whether height and width of the images are open, as multiples of the patch.
        resized: the checkpoint resized to each further size that the file is for, or is proven at where it takes any.
        like: whose way of resampling positions; None follows the checkpoint.
        outputs: the names of the file's outputs, see `core.outputs`; none for the one that the config says.

    Raises:
        ConfigError: values that cannot be.
    """

    batch: int | None = None
    opset: int = USUAL_OPSET
    layout: str = "nhwc"
    include_preprocessing: bool = False
    target: Target = Target.CPU
    dynamic_size: bool = False
    resized: tuple[Checkpoint, ...] = ()
    like: Convention | None = None
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if self.batch is not None and self.batch < 1:
            problems.append(f"batch is {self.batch}; expected a positive number or 'dynamic'")
        if self.opset not in OPSETS:
            problems.append(f"opset is {self.opset}; expected {OPSETS.start} to {OPSETS.stop - 1}")
        if self.layout not in ("nhwc", "nchw"):
            problems.append(f"layout is {self.layout!r}; expected nhwc or nchw")
        if self.target is Target.TRANSFORMERS_JS and (self.layout != "nchw" or self.include_preprocessing):
            problems.append("transformers.js gives its models normalised images in NCHW, not pixels")
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def input_spec(self, config: ViTConfig) -> InputSpec:
        """The input of a float model made with these options."""
        height, width = (None, None) if self.dynamic_size else config.image_size
        image = (height, width, config.channels) if self.layout == "nhwc" else (config.channels, height, width)
        return InputSpec(
            shape=(self.batch, *image),
            dtype="uint8" if self.include_preprocessing else "float32",
            layout=self.layout,
            preprocessing_inside=self.include_preprocessing,
            name=PIXEL_VALUES if self.target is Target.TRANSFORMERS_JS else InputSpec.name,
        )

    def traced_spec(self, config: ViTConfig) -> InputSpec:
        """The input of the structure of this config, which is traced for one size."""
        return dataclasses.replace(self, dynamic_size=False).input_spec(config)

    def sizes(self, config: ViTConfig) -> tuple[ImageSize, ...]:
        """What a manifest says of its sizes, of which the first is the config's; empty for that one alone."""
        if not self.resized:
            return ()
        pixels = (config.image_size, *(checkpoint.config.image_size for checkpoint in self.resized))
        return tuple(ImageSize(size, "" if self.dynamic_size else signature_of(size)) for size in pixels)

    def position_filter(self, checkpoint: Checkpoint) -> Filter:
        """What positions are resampled with where the size of the images is open."""
        return FILTERS[convention_of(checkpoint, self.like)].positions


class Exporter(Protocol):
    """Writes one format. The stage around it does staging, golden data, manifest and proof."""

    libraries: tuple[str, ...]
    """Distributions whose versions go into the manifest."""

    def write(self, checkpoint: Checkpoint, artifact: Artifact, options: ExportOptions) -> None:
        """Write the model files into `artifact.directory`, with `artifact.essentials()` inside them.

        Raises:
            ExportError: the converter's result is not what it has to be.
            EngineError: the converter failed.
        """


class Compiler(Protocol):
    """Compiles one format. The stage around it does the graph, staging, golden data, manifest and proof."""

    def check(self, options: PlanOptions) -> None:
        """Refuse, before any work, what could not be compiled or proven on this machine.

        Raises:
            MissingEngineError: what compiles is not installed.
            EngineError: there is no hardware to compile for or to prove on.
        """

    def write(self, source: Artifact, target: Artifact, options: PlanOptions) -> Artifact:
        """Write the model file into `target.directory`.

        Args:
            source: the artifact that it is made of, which is only read.
            target: the artifact to be.
            options: how.

        Returns:
            `target` with what there is to record of the file.

        Raises:
            EngineError: the compiler refuses the graph.
            OSError: the disk is full.
        """

    def account(self, artifact: Artifact) -> str:
        """What its user should know of how a file was made, in words."""
