"""Description on PyPI, composed of the README and the pages of docs/ when a distribution is built."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

FRONT = "README.md"
# The README is read in a checkout, the description by people who have none.
INSTALL = ('pip install -e ".[cpu]"', 'pip install "vit-deploy[cpu]"')
NOTE = "*Paths in parentheses are files of the source distribution.*"
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
COMMENT = re.compile(r"^<!--.*?-->\n+", re.MULTILINE)


class Description(MetadataHookInterface):
    """Give the distribution its long description."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`, which pyproject.toml declares as dynamic."""
        metadata["readme"] = {"content-type": "text/markdown", "text": description(Path(self.root))}


def description(root: Path) -> str:
    """The README and the pages of docs/ below it as one page of Markdown, in which no link is relative.

    Links between these pages become links to headings, and links to other files text that names them.
    """
    names = [FRONT, *sorted(f"docs/{path.name}" for path in (root / "docs").glob("*.md"))]
    pages = {name: COMMENT.sub("", (root / name).read_text(encoding="utf-8")) for name in names}
    anchors = _anchors(pages)
    composed = "\n".join(_alone(name, page, anchors) for name, page in pages.items())
    title, _, rest = composed.partition("\n")
    return f"{title}\n\n{NOTE}\n{rest}".replace(*INSTALL)


def _anchors(pages: dict[str, str]) -> dict[tuple[str, str], str]:
    """What renderers call each heading of the whole page, by its page and its name there; a page's own is ''."""
    anchors: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = {}
    for name, page in pages.items():
        for _, heading in HEADING.findall(FENCED.sub("", page)):
            slug = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            count = counts.get(slug, 0)
            counts[slug] = count + 1
            anchor = f"{slug}-{count}" if count else slug
            anchors.setdefault((name, ""), anchor)
            anchors.setdefault((name, slug), anchor)
    return anchors


def _alone(name: str, page: str, anchors: dict[tuple[str, str], str]) -> str:
    """One page as part of the whole: headings below the README's title, links that need no other file."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if "://" in target:
            return found.group()
        path, _, fragment = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        if (path, fragment) in anchors:
            return f"[{text}](#{anchors[path, fragment]})"
        if path in (page for page, _ in anchors):
            raise ValueError(f"{name} links to {target}, and {path} has no such heading")
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    parts = FENCED.split(page)  # prose and code by turns
    for index in range(0, len(parts), 2):
        prose = LINK.sub(link, parts[index])
        parts[index] = prose if name == FRONT else HEADING.sub(r"#\1 \2", prose)
    return "".join(parts)
