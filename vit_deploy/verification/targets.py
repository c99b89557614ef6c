"""What a path or a name on the command line stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig
from vit_deploy.core.format_table import KERAS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import ConfigError
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.recording import record

DEFAULT_SCALE = "tiny"
NAMELESS = "model"  # what a checkpoint that is no file is called
RESIZABLE = ("image_size", "patch_size")  # what can be changed in a checkpoint that is there


@dataclass(frozen=True)
class Source:
    """A model to work on.

    Args:
        checkpoint: the model.
        name: the name of the default output folder.
        note: what the user should know about where it comes from, but for what was assumed; empty for a file.
        origin: the provenance of the checkpoint as it was read, which says what was assumed; None for a scale.
    """

    checkpoint: Checkpoint
    name: str
    note: str = ""
    origin: tuple[Step, ...] | None = None


def load_source(
    given: str | Checkpoint | None,
    overrides: Mapping[str, Any],
    seed: int | None,
    like: str | None = None,
    stated: Mapping[str, Any] | None = None,
) -> Source:
    """The model behind a scale's name, a checkpoint file, or nothing.

    Args:
        given: a scale, which wins over a file of the same name; None builds `tiny`; or a checkpoint that is read.
        overrides: the requested fields of the config; a checkpoint takes the sizes of image and patch, to which
            it is resized.
        seed: the seed of random weights.
        like: name of the convention that a checkpoint is resized by; None follows the one it came with.
        stated: fields of the config that a checkpoint does not say, or of a scale in place of its own.

    Raises:
        ConfigError: options that a checkpoint file cannot take, or a scale cannot.
        CheckpointError: a file that is missing, broken or of no known dialect.
    """
    scale = DEFAULT_SCALE if given is None else NAMELESS if isinstance(given, Checkpoint) else given
    if scale in SCALE_CONFIGS:
        if like is not None:
            raise ConfigError(
                f"--like says how a checkpoint is resized, and {scale} is made at its size", fix="leave it out"
            )
        from vit_deploy.checkpoints import (
            HEAD,
            LABELS,
            PREPROCESS,
            REQUIRE_LICENCE,
            options_of_files,
            stated_preprocess,
            with_labels,
        )

        if given_to_files := options_of_files(stated or {}):
            raise ConfigError(
                f"{', '.join(given_to_files)} says which model a file of weights holds, and {scale} is a scale",
                fix="leave it out, or give a checkpoint",
            )
        if (stated or {}).get(REQUIRE_LICENCE):
            raise ConfigError(
                f"--require-licence asks for a model's licence, and {scale} is a scale with random weights",
                fix="leave it out, or give a checkpoint",
            )
        fields = dict(stated or {}) | dict(overrides)
        preprocess, labels = fields.pop(PREPROCESS, {}), fields.pop(LABELS, None)
        if fields.pop(HEAD, True) is False:
            fields["include_top"] = False
        config = ViTConfig.from_scale(scale, **fields)
        usual = Preprocess.for_channels(config.channels)
        checkpoint = Checkpoint.random(config, seed or 0, preprocess=stated_preprocess(usual, preprocess))
        if labels is not None:
            checkpoint = with_labels(checkpoint, labels)
        note = f"random weights, seed {seed or 0}: good for sizes and timings, not for answers"
        return Source(checkpoint, scale, f"{scale} with {note}")
    asked = [f"--{name.replace('_', '-')}" for name in overrides if name not in RESIZABLE]
    asked += ["--seed"] if seed is not None else []
    if asked:
        shape, them = ("shapes", "it") if len(asked) == 1 else ("shape", "them")
        raise ConfigError(
            f"{', '.join(asked)} {shape} a model that is made from a scale, and {scale} is a checkpoint",
            fix=f"leave {them} out, or give one of {', '.join(SCALE_CONFIGS)}",
        )
    from vit_deploy.core.resize import as_convention, assumed_convention, resize

    if like is not None and not overrides:
        raise ConfigError("--like says how a checkpoint is resized, and no size is given", fix="add --image-size")
    convention = as_convention(like) if like is not None else None
    wanted = overrides.get("image_size") if convention is None else None
    loaded, notes = (given, []) if isinstance(given, Checkpoint) else _read(Path(scale), wanted, stated)
    resized = resize(loaded, overrides.get("image_size"), overrides.get("patch_size"), convention)
    if resized is not loaded:
        notes += [_resized_note(resized), assumed_convention(loaded, convention)]
    origin = None if isinstance(given, Checkpoint) else loaded.provenance
    return Source(resized, _name(Path(scale)), "; ".join(filter(None, notes)), origin)


def _read(
    path: Path, image_size: tuple[int, int] | None, stated: Mapping[str, Any] | None
) -> tuple[Checkpoint, list[str]]:
    """A checkpoint that is to be resized, and what has to be known of it."""
    from vit_deploy import checkpoints

    own = checkpoints.load(path, config=stated)
    loaded = checkpoints.read_at(image_size, own, path, config=stated)
    return loaded, [] if loaded is own else [read_again(loaded.config.image_size)]


def _name(path: Path) -> str:
    from vit_deploy.checkpoints.hub import parse

    name = None if path.exists() else parse(path.as_posix())
    return path.resolve().stem if name is None else name.model


def read_again(image_size: tuple[int, int]) -> str:
    """What is said of a checkpoint whose positions follow the size of the images.

    Args:
        image_size: (height, width).
    """
    return f"read for images of {'x'.join(map(str, image_size))}, of which its positions are those of its own program"


def _resized_note(checkpoint: Checkpoint) -> str:
    facts = checkpoint.provenance[-1].facts
    changes = (
        f"{name.replace('_', ' ')} {'x'.join(map(str, old))} to {'x'.join(map(str, new))}"
        for name, old, new in ((name, facts["from"][name], facts["to"][name]) for name in RESIZABLE)
        if old != new
    )
    return f"resized like {facts['convention']}: {', '.join(changes)}"


def is_checkpoint(path: Path) -> bool:
    """Whether the path is a Keras file, which the `keras` runtime runs as it is."""
    return path.suffix in KERAS.suffixes


def open_artifact(path: Path, stated: Mapping[str, Any] | None = None) -> Artifact:
    """The artifact in a folder, or a `.keras` file as if it were one.

    Args:
        path: of the folder or the file.
        stated: what the user says of a `.keras` file, as `checkpoints.load` takes it.

    Raises:
        ArtifactError: no artifact, or one that was changed.
        CheckpointError: a `.keras` file that is missing, broken, or holds no ViT.
    """
    return _keras_artifact(path, stated)[0] if is_checkpoint(path) else read_artifact(path)


def open_to_time(path: Path) -> Artifact:
    """`open_artifact`, or a bare model file of anybody, of which only the size of its images is known.

    Raises:
        ArtifactError, CheckpointError: as `open_artifact`, or no image goes into the file.
        ConfigError: a bare file whose layout can be read in several ways.
    """
    if (path / MANIFEST).is_file():
        return read_artifact(path)
    from vit_deploy.formats.bare import bare_format, read_to_time  # a device, where all are artifacts, does without

    return read_to_time(path) if bare_format(path) is not None else open_artifact(path)


def open_with_golden(path: Path) -> tuple[Artifact, Golden]:
    """`open_artifact`, with its golden data; those of a `.keras` file are computed.

    Raises:
        ArtifactError, CheckpointError: as `open_artifact`, or golden data that are missing or damaged.
    """
    if is_checkpoint(path):
        artifact, checkpoint = _keras_artifact(path)
        return artifact, record(checkpoint)
    artifact = read_artifact(path)
    return artifact, read_golden(artifact)


def _keras_artifact(path: Path, stated: Mapping[str, Any] | None = None) -> tuple[Artifact, Checkpoint]:
    from vit_deploy import checkpoints

    checkpoint = checkpoints.load(path, config=stated)
    config = checkpoint.config
    spec = InputSpec(shape=(None, *config.image_size, config.channels))
    artifact = describe(checkpoint, path.parent, format="keras", precision="fp32", input=spec, model=path.name)
    return artifact, checkpoint
