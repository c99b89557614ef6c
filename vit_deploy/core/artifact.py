"""An artifact on disk: a model file, its manifest, and the golden data that prove it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.config import Size, ViTConfig, in_words
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec, OutputSpec
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import ConfigError

if TYPE_CHECKING:  # a device has no checkpoints, and often no artifact for several sizes or outputs
    from vit_deploy.core.checkpoint import Checkpoint
    from vit_deploy.core.image_sizes import ImageSize
    from vit_deploy.core.outputs import Output

SCHEMA = 1
GOLDEN = "golden.npz"
ESSENTIAL = "vit_deploy."  # what the keys of essentials begin with


@dataclass(frozen=True)
class Artifact:
    """An artifact that was written and can be run.

    Args:
        directory: the artifact's folder.
        format: "onnx", "tflite", "savedmodel", "tensorrt"; "keras" for a checkpoint file that is run as it is.
        precision: "fp32", "int8", …
        config: the function the model computes.
        preprocess: the preprocessing from image to input.
        labels: name of each class, or empty.
        input: what the file takes.
        output: what it gives; of several outputs, the first that it is asked for.
        outputs: what each of its outputs gives, by name; empty for the one that the config says.
        weights_digest: the weights digest of the fp32 checkpoint the artifact was made from; the same in all formats.
        provenance: what was done to the weights, oldest first.
        options: what the exporter was asked for, in plain JSON values.
        files: relative path to (SHA-256, bytes) of everything but the manifest.
        producer: library to version, of what made it.
        parent: weights digest or manifest digest of what it was derived from, if anything.
        model: the model's path in `directory`; empty takes the format's usual one.
        output_tensor: the output's name in the file; empty takes the config's.
        is_bare: whether it is a file by itself, without a manifest and golden data; see `bare`.
        sizes: of images that the file is for, or was proven at where it takes any, the config's first; empty for that
            one alone.
    """

    directory: Path
    format: str
    precision: str
    config: ViTConfig
    preprocess: Preprocess
    labels: tuple[str, ...]
    input: InputSpec
    weights_digest: str
    provenance: tuple[Step, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    producer: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    model: str = ""
    output: OutputSpec = field(default_factory=OutputSpec)
    output_tensor: str = ""
    is_bare: bool = False
    outputs: Mapping[str, OutputSpec] = field(default_factory=dict)
    sizes: tuple[ImageSize, ...] = ()

    @property
    def signature(self) -> str:
        """What runs images of its size, in a file that has a graph for each; empty elsewhere."""
        return next((one.signature for one in self.sizes if one.pixels == self.config.image_size), "")

    @property
    def is_for_any_size(self) -> bool:
        """Whether height and width of the images are open."""
        return None in self.input.shape[1:]

    def takes(self, image_size: Size) -> bool:
        """Whether it is for images of that size."""
        if self.is_for_any_size:
            return not any(side % patch for side, patch in zip(image_size, self.config.patch_size, strict=True))
        return image_size in (self.config.image_size, *(one.pixels for one in self.sizes))

    def at(self, image_size: Size) -> Artifact:
        """The same file, taken for images of another of its sizes.

        Raises:
            ConfigError: it is not for images of that size.
        """
        if image_size == self.config.image_size:
            return self
        there = [one.pixels for one in self.sizes] or [self.config.image_size]
        if not self.is_for_any_size and image_size not in there:
            raise ConfigError(
                f"{self.path} is for images of {' and '.join(map(in_words, there))} pixels (height x width), "
                f"not of {in_words(image_size)}",
                fix="export it for that size",
            )
        from vit_deploy.core.image_sizes import resized_preprocess

        spec = self.input
        if not self.is_for_any_size:
            spec = dataclasses.replace(spec, shape=(spec.batch, *image_size, self.config.channels))
        return dataclasses.replace(
            self,
            config=self.config.replace(image_size=image_size),
            preprocess=resized_preprocess(self.preprocess, self.config.image_size, image_size),
            input=spec,
        )

    def with_signature(self, name: str) -> Artifact:
        """The same file, taken for the images of one of its signatures.

        Raises:
            ConfigError: it has none of that name.
        """
        found = [one.pixels for one in self.sizes if one.signature == name]
        if not found or not name:
            there = [one.signature for one in self.sizes if one.signature]
            raise ConfigError(
                f"{self.path} has no signature {name!r}",
                fix=f"choose one of {', '.join(there)}" if there else "leave it out: the file has one alone",
            )
        return self.at(found[0])

    @property
    def taken_size(self) -> str:
        """The size that it is taken for, as "384x512"; empty for its first or only one."""
        is_another = bool(self.sizes) and self.config.image_size != self.sizes[0].pixels
        return in_words(self.config.image_size) if is_another else ""

    def taken_for(self, signature: str | None = None, image_size: str | None = None) -> Artifact:
        """The same file, taken for what a command asks for; itself where it asks for nothing.

        Args:
            signature: the name of one.
            image_size: pixels as "384x512".

        Raises:
            ConfigError: it has no such signature, or is not for images of that size, or the signature is not.
        """
        chosen = self.with_signature(signature) if signature else self
        if not image_size:
            return chosen
        height, _, width = image_size.partition("x")
        size = int(height), int(width)
        if signature and size != chosen.config.image_size:
            own = in_words(chosen.config.image_size)
            raise ConfigError(
                f"the signature {signature} of {self.path} is for images of {own} pixels (height x width), "
                f"not of {in_words(size)}",
                fix="give the signature or the size",
            )
        return chosen.at(size)

    @property
    def output_name(self) -> str:
        """What the model file calls its output; of several, the config's own if that is among them, else the first."""
        usual = self.config.output_name
        if self.outputs and usual not in self.outputs:
            usual = next(iter(self.outputs))
        return self.output_tensor or usual

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the model file calls its outputs."""
        return tuple(self.outputs) or (self.output_name,)

    @property
    def deepest_output(self) -> str:
        """The output that most of the model is in front of."""
        if not self.outputs:
            return self.output_name
        return max(self.named_outputs, key=lambda output: output.depth).name

    @property
    def named_outputs(self) -> tuple[Output, ...]:
        """Its outputs where it was made for some by name; empty for the one that the config says."""
        if not self.outputs:
            return ()
        from vit_deploy.core.outputs import outputs_of_model

        return outputs_of_model(self.outputs, self.config)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of `output` for one image."""
        own = [output for output in self.named_outputs if output.name == self.output_name]
        return own[0].shape(self.config) if own else self.config.output_shape

    @property
    def gives_logits(self) -> bool:
        """Whether `output` is logits."""
        return self.config.include_top and (not self.outputs or self.config.output_name in self.outputs)

    @property
    def gives_classes(self) -> bool:
        """Whether `output` is of classes: logits or probabilities."""
        if not self.outputs:
            return self.config.include_top
        from vit_deploy.core.outputs import LOGITS, PROBABILITIES

        return self.config.include_top and self.output_name in (LOGITS, PROBABILITIES)

    @property
    def no_classes(self) -> str:
        """Why it gives no classes, in words."""
        return f"gives {', '.join(self.outputs)}" if self.outputs else "has no head"

    def giving(self, specs: Mapping[str, OutputSpec]) -> Artifact:
        """A copy whose outputs give other numbers.

        Args:
            specs: what each output gives, by its name.
        """
        outputs = {name: specs[name] for name in self.outputs}
        return dataclasses.replace(self, output=specs[self.output_name], outputs=outputs)

    @property
    def model_path(self) -> Path:
        """The file, or for a SavedModel the folder, that the engine loads."""
        return self.directory / (self.model or FORMATS[self.format].model_files[0])

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is a checkpoint file that is run as it is."""
        return self.format not in FORMATS.of_artifacts()

    @property
    def path(self) -> Path:
        """What stands for it on the command line: its folder, or the file that is run as it is."""
        return self.model_path if self.is_checkpoint or self.is_bare else self.directory

    @property
    def name(self) -> str:
        """`<format>-<precision>`, the folder's usual name."""
        return f"{self.format}-{self.precision}"

    @property
    def model_bytes(self) -> int:
        """Size of the model files alone, without manifest and golden data."""
        paths = [self.model_path, self.directory / (self.model_path.name + ".data")]
        files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
        return sum(file.stat().st_size for file in files if file.is_file())

    def to_dict(self) -> dict[str, Any]:
        """The manifest, in plain JSON values; `artifact.schema.json` is its published schema."""
        return {
            "schema": SCHEMA,
            "format": self.format,
            "precision": self.precision,
            "model": self.model_path.name,
            "input": self.input.to_dict(),
            "output": {
                "name": self.output_name if self.outputs else self.config.output_name,
                "shape": [self.input.batch, *self.open_output_shape()],
                **vars(self.output),
            },
            **({"outputs": [self._output_entry(output) for output in self.named_outputs]} if self.outputs else {}),
            **({"sizes": [one.to_dict() for one in self.sizes]} if self.sizes else {}),
            "config": self.config.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "labels": list(self.labels),
            "weights_digest": self.weights_digest,
            "provenance": [step.to_dict() for step in self.provenance],
            "options": dict(self.options),
            "producer": dict(self.producer),
            "parent": self.parent,
            "files": {name: {"sha256": sha, "bytes": size} for name, (sha, size) in sorted(self.files.items())},
        }

    def _output_entry(self, output: Output) -> dict[str, Any]:
        shape = [self.input.batch, *self.open_output_shape(output)]
        return {"name": output.name, "kind": str(output.kind), "shape": shape, **vars(self.outputs[output.name])}

    def open_output_shape(self, output: Output | None = None) -> tuple[int | None, ...]:
        """The shape of an output for one image, None where a side follows from a size of images that is open.

        Args:
            output: one by name; None for the one that is read first.
        """
        here = self.output_shape if output is None else output.shape(self.config)
        if not self.is_for_any_size:
            return here
        sides = zip(self.config.image_size, self.config.patch_size, (1, 2), strict=True)
        larger = self.config.replace(image_size=tuple(side + more * patch for side, patch, more in sides))
        other = dataclasses.replace(self, config=larger)
        there = other.output_shape if output is None else output.shape(larger)
        return tuple(side if side == moved else None for side, moved in zip(here, there, strict=True))

    def essentials(self) -> dict[str, str]:
        """What goes into the model file itself: short keys, JSON texts, no file digests."""
        manifest = self.to_dict()
        keys = ("format", "precision", "input", "output", "config", "preprocess", "labels", "weights_digest")
        named = [name for name in ("outputs", "sizes") if name in manifest]
        kept = {key: manifest[key] for key in (*keys, *named, "provenance", "producer")}
        return {f"{ESSENTIAL}{key}": json.dumps(value, sort_keys=True) for key, value in kept.items()}


def versions(*libraries: str) -> dict[str, str]:
    """Installed versions of vit-deploy and of the distributions named; absent ones are left out."""
    found = {}
    for name in ("vit-deploy", "numpy", *libraries):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe(
    checkpoint: Checkpoint, directory: Path, *, format: str, precision: str, input: InputSpec, **others: Any
) -> Artifact:
    """The artifact that `checkpoint` becomes in `directory`, before its files are digested."""
    return Artifact(
        directory=directory,
        format=format,
        precision=precision,
        config=checkpoint.config,
        preprocess=checkpoint.preprocess,
        labels=checkpoint.labels,
        input=input,
        weights_digest=checkpoint.digest(),
        provenance=checkpoint.provenance,
        **others,
    )
