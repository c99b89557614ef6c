"""The archive on a device: where its artifacts and images are, and what they were called where they were packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact

HOME = Path(__file__).resolve().parents[2]  # where the archive was unpacked
PLACE = "artifacts"
LISTING = f"{PLACE}/listing.json"
IMAGES = "images"


def listing() -> list[tuple[Path, str]]:
    """Where each packed artifact is, and where it was."""
    return [(HOME / entry["place"], str(entry["path"])) for entry in _listed()["artifacts"]]


def commands() -> tuple[str, ...]:
    """The commands that the archive was packed for."""
    return tuple(_listed()["commands"])


def _listed() -> dict[str, Any]:
    listed: dict[str, Any] = json.loads((HOME / LISTING).read_text(encoding="utf-8"))
    return listed


def packed() -> Sequence[tuple[Artifact, str]]:
    """Each packed artifact, and where it was.

    Raises:
        ArtifactError: one that was changed.
    """
    return [(read_artifact(folder), path) for folder, path in listing()]


def as_it_was_called(text: str) -> str:
    """A message with the paths that the artifacts had where they were packed."""
    for folder, path in listing():
        text = text.replace(str(folder), path)
    return text
