"""HTML in which nothing that was read is taken for markup."""

from __future__ import annotations

from html import escape

VOID = {"meta", "br", "link"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: str, **attributes: str | int | None) -> Markup:
    """One element: children are escaped unless they are markup, and attributes always.

    Args:
        tag: its name.
        children: in their order.
        attributes: an underscore stands for a dash and is dropped at the end; None leaves the attribute out.
    """
    said = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = joined(*children)
    return Markup(f"<{tag}{said}>" if tag in VOID else f"<{tag}{said}>{inside}</{tag}>")


def joined(*children: str) -> Markup:
    """Several after each other, escaped unless they are markup."""
    return Markup("".join(child if isinstance(child, Markup) else escape(child) for child in children))
