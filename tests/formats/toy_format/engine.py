"""NumPy as the engine of toy files."""

from __future__ import annotations

import contextlib

import numpy as np

from toy_format.files import read_weights
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.errors import EngineError
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.values import checked_images


class ToyRuntime:
    """Computes the weights that the file holds as the reference does, in float32."""

    @contextlib.contextmanager
    def open(self, artifact, options):
        if options.provider not in (None, "cpu"):
            raise EngineError(f"NumPy has no provider {options.provider!r}", fix="leave it out")
        yield ToySession(artifact, Checkpoint(artifact.config, read_weights(artifact.model_path), artifact.preprocess))


class ToySession:
    provider, placement, notes = "cpu", {"cpu": 1}, ()

    def __init__(self, artifact, checkpoint):
        self._artifact, self._checkpoint = artifact, checkpoint

    def infer(self, images):
        def run(group):
            return forward(self._checkpoint, group, np.float32).astype(np.float32)

        return in_batches(run, checked_images(images, self._artifact), self._artifact.input.batch)
