"""The job description that the training process gets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints import load, save
from vit_deploy.compression import CompressOptions
from vit_deploy.compression.data import Images, data_digest, open_images, split
from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.input_output import InputSpec
from vit_deploy.errors import DataError

CLASSES = 2  # at least
MODEL = "the model"  # as errors call it
JOB, START, RESULT = "job.json", "start.safetensors", "result.npz"


@dataclass(frozen=True)
class Job:
    """One training.

    Args:
        options: the options of the compression.
        data: folder or `.npz` to train on.
        held_out: folder or `.npz` to judge by; empty for a part of `data`.
        seen: digests of the images of both.
        digest: the digest of the weights to begin with.
        folder: the folder of the job, where the model to begin with is.
    """

    options: CompressOptions
    data: str
    held_out: str
    seen: tuple[str, ...]
    digest: str
    folder: str

    @classmethod
    def write(
        cls, checkpoint: Checkpoint, options: CompressOptions, data: Path, held_out: Path | None, folder: Path
    ) -> Job:
        """Put it into a folder, with the model.

        Raises:
            DataError: there are no images.
        """
        given = [path.resolve() for path in (data, held_out) if path is not None]
        job = cls(
            options,
            data=str(given[0]),
            held_out=str(given[1]) if held_out else "",
            seen=tuple(map(data_digest, given)),
            digest=checkpoint.digest(),
            folder=str(folder),
        )
        save(checkpoint, folder / START, force=True)
        values = {**dataclasses.asdict(job), "options": options.to_dict()}
        (folder / JOB).write_text(json.dumps(values, sort_keys=True), encoding="utf-8")
        return job

    @classmethod
    def read(cls, path: Path) -> Job:
        """What `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        options = CompressOptions.from_dict(values["options"])
        return cls(**{**values, "options": options, "seen": tuple(values["seen"])})

    def fingerprint(self) -> str:
        """The same for the same training, wherever its folder is."""
        values = {**dataclasses.asdict(self), "options": self.options.to_dict(), "folder": ""}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def checkpoint(self, folder: Path) -> Checkpoint:
        """The model to begin with."""
        return load(folder / START)

    def images(self) -> tuple[Images, Images]:
        """To train on, and held out.

        Raises:
            DataError: images and classes that the model cannot have, or too few of either.
        """
        artifact = as_artifact(self.checkpoint(Path(self.folder)), Path(MODEL))
        images = open_images(Path(self.data), artifact)
        if len(set(images.labels.tolist())) < CLASSES:
            raise DataError(
                f"all {len(images)} images of {self.data} are of one class; there is nothing to tell apart",
                fix="give images of several classes to train on",
            )
        if self.held_out:
            return images, open_images(Path(self.held_out), artifact)
        return split(images, self.options.held_out, self.options.seed)


def as_artifact(checkpoint: Checkpoint, path: Path) -> Artifact:
    """The model as datasets want to know it."""
    spec = InputSpec(shape=(None, *checkpoint.config.image_size, checkpoint.config.channels))
    return describe(checkpoint, path.parent, format="keras", precision="fp32", input=spec, model=path.name)
