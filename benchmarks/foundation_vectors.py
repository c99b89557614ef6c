"""Vectors and tokens that files give for photographs, kept by the digest of the file so that a stopped run goes on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.exporters.quantization.outputs import answers

Pixels = NDArray[np.uint8]
Float32 = NDArray[np.float32]

MODEL_FILES = ("model.", "saved_model/")
GROUP = 25  # photographs whose vectors are kept in one file


def tokens(artifact: Artifact, pixels: Pixels) -> Float32:
    """All tokens `(n, tokens, dim)`, one image a call: ranges that are found as a file runs are then an image's own."""
    images = artifact.preprocess.normalize(pixels)
    return answers(artifact, (image[None] for image in images))


def vectors(artifact: Artifact, pixels: Pixels, folder: Path) -> Float32:
    """The class token of each photograph beside the mean of its patch tokens, as DINOv2's own probes take them.

    Args:
        artifact: a file that gives tokens with the class token first.
        pixels: `(n, height, width, 3)`.
        folder: where vectors are kept.

    Returns:
        `(n, 2 dim)`, from an earlier run where the file and the photographs are the same.
    """
    groups = [pixels[at : at + GROUP] for at in range(0, len(pixels), GROUP)]
    return np.concatenate([_group(artifact, group, folder) for group in groups])


def _group(artifact: Artifact, pixels: Pixels, folder: Path) -> Float32:
    digests = [digest for name, (digest, _) in sorted(artifact.files.items()) if name.startswith(MODEL_FILES)]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    mark = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    path = folder / f"{artifact.name}-{digest[:16]}" / f"{mark[:16]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = tokens(artifact, pixels)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.concatenate([found[:, 0], found[:, 1:].mean(axis=1)], axis=-1))
        partial.replace(path)
    return np.asarray(np.load(path))
