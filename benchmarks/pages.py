"""Which block of which page is made from which results?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks import headlines, markers
from benchmarks.parts import PARTS
from benchmarks.processes import ROOT
from benchmarks.records import Result

FRONT, INSIDE, NVIDIA = ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "docs" / "nvidia.md"
PAGES = (FRONT, INSIDE, NVIDIA)


def blocks(results: Path) -> dict[Path, dict[str, str]]:
    """What each block of each page says by the results that are stored."""
    found = {name: part.stored(results) for name, part in PARTS.items()}
    return {
        FRONT: headlines.blocks(found),
        INSIDE: {name: _rendered(name, found[name]) for name in PARTS},
        NVIDIA: headlines.nvidia_blocks(found),
    }


def rewrite(results: Path) -> None:
    """Put every block into its page."""
    for path, bodies in blocks(results).items():
        page = path.read_text(encoding="utf-8")
        for name, body in bodies.items():
            page = markers.replaced(page, name, body)
        path.write_text(page, encoding="utf-8")


def everything(results: Path) -> str:
    """What the parts with results say, one below the other, for results that are not published."""
    found = {name: part.stored(results) for name, part in PARTS.items()}
    return "\n\n".join(f"## {name}\n\n{_rendered(name, value)}" for name, value in found.items() if value)


def _rendered(name: str, found: Mapping[str, Result]) -> str:
    return PARTS[name].render(found) if found else "Not measured."
