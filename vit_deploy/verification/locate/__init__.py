"""Engines that show their intermediate activations, by format."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Registry
from vit_deploy.verification.locate.flow import Flow

TAPPERS = Registry("format to look into", lambda: FORMATS.plugins(lambda format: format.tapper))
"""By format; what runs there runs on the CPU, the engine's own kernels without a delegate."""


class Opened(Protocol):
    """A model file whose inside can be read.

    Attributes:
        flow: the file's graph.
    """

    flow: Flow

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way, by name in `flow`, each image's numbers behind those of the one before.

        Args:
            names: the names of values.
            images: images as the runtimes take them, exactly as many as the file is made for.

        Returns:
            Real numbers also where the file has scaled integers.
        """


class Tapper(Protocol):
    """An engine that shows what it computes on the way."""

    def open(self, artifact: Artifact) -> AbstractContextManager[Opened]:
        """Load an artifact.

        Raises:
            EngineError: the engine refuses the file.
            ArtifactError: the file is damaged.
        """
