"""Where in a page does a text stand that was made from results?"""

from __future__ import annotations

import re

_BEGIN = re.compile(r"<!-- begin ([\w-]+): written by python -m benchmarks -->")


def begin(name: str) -> str:
    """The line before the block."""
    return f"<!-- begin {name}: written by python -m benchmarks -->"


def end(name: str) -> str:
    """The line behind it."""
    return f"<!-- end {name} -->"


def names(page: str) -> list[str]:
    """Of all blocks of a page, in their order."""
    return _BEGIN.findall(page)


def block(page: str, name: str) -> str:
    """What stands in a block now.

    Raises:
        ValueError: the page has no such block, or no end of it.
    """
    _, opened, rest = page.partition(begin(name))
    body, closed, _ = rest.partition(end(name))
    if not opened or not closed:
        raise ValueError(f"the page has no block {name}; expected the lines {begin(name)} and {end(name)}")
    return body.strip("\n")


def replaced(page: str, name: str, body: str) -> str:
    """The page with another text in a block.

    Raises:
        ValueError: the page has no such block.
    """
    block(page, name)
    before, _, rest = page.partition(begin(name))
    _, _, after = rest.partition(end(name))
    return f"{before}{begin(name)}\n\n{body}\n\n{end(name)}{after}"


def without_blocks(page: str) -> str:
    """What people wrote by hand."""
    for name in names(page):
        page = replaced(page, name, "")
    return page
