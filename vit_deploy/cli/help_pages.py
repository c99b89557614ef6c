"""Help pages in which names of options stay whole, so that they can be copied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

if TYPE_CHECKING:
    from rich.table import Table


class WholeNames(TyperCommand):
    """A command in whose help descriptions give way before names of options do."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it."""
        from typer import rich_utils

        # Typer has no setting for this: its tables make all columns narrower alike, and cut names of options.
        vars(rich_utils)["Table"] = _table_of_options()
        super().format_help(ctx, formatter)


def _table_of_options() -> type[Table]:
    from rich.console import RenderableType
    from rich.style import StyleType
    from rich.table import Table

    class TableOfOptions(Table):
        """A table whose columns of options keep their width."""

        def add_row(
            self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
        ) -> None:
            super().add_row(*renderables, style=style, end_section=end_section)
            for column, cell in zip(self.columns, renderables, strict=False):
                column.no_wrap |= str(cell).startswith("-")

    return TableOfOptions
