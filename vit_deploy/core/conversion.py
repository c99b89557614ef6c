"""How a maker's converter takes a model file, as manifests record it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.errors import ArtifactError

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
        """What a manifest records; None where the file is for no converter.

        Raises:
            ArtifactError: a record that cannot be.
        """
        record: Any = artifact.options.get(RECORD)
        if record is None:
            return None
        names = [field.name for field in fields(cls)]
        if (
            not isinstance(record, dict)
            or set(record) != set(names)
            or not all(isinstance(text, str) for text in record.values())
        ):
            raise ArtifactError(
                f"{artifact.directory / MANIFEST} is damaged: {RECORD} is {record!r}, "
                f"expected an object of the texts {', '.join(names)}",
                fix="export the model again",
            )
        return cls(**record)

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)
