"""The forms in which results can be shown, and what has to be installed for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vit_deploy.core.registry import Plugin, Registry

if TYPE_CHECKING:  # it needs NumPy, which a look at the table does not
    from vit_deploy.performance.report.documents import Gathered

WRITERS = Registry(
    "report",
    {
        ".html": Plugin("vit_deploy.performance.report.drawn:drawn_page", extra="report", needs=("vl_convert",)),
        ".md": Plugin("vit_deploy.performance.report.markdown_page:markdown_page"),
        ".csv": Plugin("vit_deploy.performance.report.spreadsheet:spreadsheet"),
    },
)


def written(gathered: Gathered, title: str, form: str) -> str:
    """The text of a report in the form that belongs to the end of a file's name.

    Raises:
        MissingEngineError: the library that draws is not installed.
    """
    text = WRITERS.load(form)(gathered, title)
    assert isinstance(text, str)
    return text
