"""Results of `verify` as annotations in GitHub Actions.

Workflow commands as GitHub documents them: `::error title=…::message`, with the characters that end a command escaped.
The runner reads them from stderr as from stdout.
"""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.core.documents import Record

DATA = {"%": "%25", "\r": "%0D", "\n": "%0A"}
PROPERTY = DATA | {":": "%3A", ",": "%2C"}


def annotated(results: Sequence[Record]) -> list[str]:
    """One line a failure, and one for each artifact that is the same."""
    lines = []
    for result in results:
        title = _escaped(f"{result['artifact']} in {result['runtime']}", PROPERTY)
        if result["ok"]:
            lines.append(f"::notice title={title}::computes the same function")
        level = "warning" if result["verdict"] == "inconclusive" else "error"
        for failure in [] if result["ok"] else result["failures"]:
            lines.append(f"::{level} title={title}::{_escaped(failure, DATA)}")
    return lines


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in text)
