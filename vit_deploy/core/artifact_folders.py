"""Folders of artifacts as the artifacts inside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.manifest import MANIFEST, bundles_in


def is_bundle(path: Path) -> bool:
    """Whether a path is an artifact: its folder, or its manifest."""
    return path.name == MANIFEST or (path / MANIFEST).is_file()


def each_bundle(paths: Sequence[Path]) -> list[Path]:
    """The paths themselves, and in place of a folder of artifacts those inside it; each once."""
    return [*dict.fromkeys(bundle for path in paths for bundle in bundles_in(path) or [path])]
