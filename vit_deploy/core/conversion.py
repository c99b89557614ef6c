"""How a maker's converter takes a model file, as manifests record it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vit_deploy.core.artifact import Artifact

RECORD = "converter"
"""The option of a manifest that holds it."""


@dataclass(frozen=True)
class Conversion:
    """The converter of a target, and its command.

    Args:
        converter: its name.
        version: the version that the command was checked with.
        install: what installs it.
        command: lines for a shell in the folder of the artifact.
    """

    converter: str
    version: str
    install: str
    command: str

    @classmethod
    def of(cls, artifact: Artifact) -> Conversion | None:
        """What a manifest records; None where the file is for no converter."""
        record: Mapping[str, Any] | None = artifact.options.get(RECORD)
        return None if record is None else cls(**record)

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)
