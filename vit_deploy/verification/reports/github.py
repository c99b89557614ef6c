"""Results of `verify` as annotations in GitHub Actions.

Workflow commands as GitHub documents them: `::error title=…::message`, with the characters that end a command escaped.
The runner reads them from stderr as from stdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.documents import Record
from vit_deploy.errors import OutputError
from vit_deploy.verification.reports.pull_request import markdown

JOB_SUMMARY = "GITHUB_STEP_SUMMARY"  # the variable that names the file which GitHub Actions shows with the job
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


def append_summary(results: Sequence[Record], path: Path) -> None:
    """Append a summary to the file that GitHub Actions shows with the job.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown(results))
    except OSError as error:
        said = f"cannot append to {path}: {error.strerror}"
        raise OutputError(said, fix=f"let {JOB_SUMMARY} name a file that can be written") from error


def _escaped(text: str, table: dict[str, str]) -> str:
    return "".join(table.get(letter, letter) for letter in text)
