"""Folders of artifacts as the artifacts inside them, and words for paths that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.errors import ArtifactError

MANIFEST = "artifact.json"
UNPROVEN = ".failed"  # how the folders end that were kept although their proof failed
SHOWN = 5  # entries of a folder that is no artifact


def is_bundle(path: Path) -> bool:
    """Whether a path is an artifact: its folder, or its manifest."""
    return path.name == MANIFEST or (path / MANIFEST).is_file()


def bundles_in(folder: Path) -> list[Path]:
    """The artifacts that lie in a folder, by name; neither hidden ones nor those that failed their proof."""
    if not folder.is_dir() or (folder / MANIFEST).is_file():
        return []
    inside = (manifest.parent for manifest in folder.glob(f"*/{MANIFEST}") if manifest.is_file())
    return sorted(parent for parent in inside if not parent.name.startswith(".") and not parent.name.endswith(UNPROVEN))


def each_bundle(paths: Sequence[Path]) -> list[Path]:
    """The paths themselves, and in place of a folder of artifacts those inside it; each once."""
    return [*dict.fromkeys(bundle for path in paths for bundle in bundles_in(path) or [path])]


def not_a_bundle(path: Path) -> ArtifactError:
    """What to raise of a path that has no manifest: that it is not there, or what is there instead."""
    if not path.exists():
        return ArtifactError(f"{path} does not exist", fix="check the path; vit-deploy export -o DIR writes artifacts")
    if (path.parent / MANIFEST).is_file():
        return ArtifactError(
            f"{path} is not an artifact, but a part of one", fix=f"give the artifact, {path.parent}, as a whole"
        )
    fix = "give a folder that vit-deploy export has written"
    if inside := bundles_in(path):
        return ArtifactError(
            f"{path} is not an artifact, but a folder of artifacts: {', '.join(artifact.name for artifact in inside)}",
            fix=f"give one of them, as {inside[0]}",
        )
    message = f"{path} is not an artifact: it has no {MANIFEST}"
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        message += f"; it holds {', '.join(names[:SHOWN])}{more}" if names else "; it is empty"
    return ArtifactError(message, fix=fix)
