"""Report files of `verify`, of which an earlier run's may be replaced without being asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.documents import Record
from vit_deploy.core.staging import check_targets, staged_file
from vit_deploy.errors import UsageError
from vit_deploy.verification.records import is_of_a_check
from vit_deploy.verification.reports import junit, pull_request


def check_reports(junit_file: Path | None, markdown_file: Path | None, *, force: bool) -> None:
    """Refuse report files that could not be written, before anything is run.

    Args:
        junit_file: for the JUnit report, if any.
        markdown_file: for the summary of a pull request, if any.
        force: whether a file that is no report may be replaced.

    Raises:
        UsageError: both are the same file.
        OutputError: a file that is there and is no report, or cannot be written.
    """
    if junit_file is not None and markdown_file is not None and junit_file.resolve() == markdown_file.resolve():
        raise UsageError(f"--junit and --markdown both name {junit_file}")
    files = [path for path in (junit_file, markdown_file) if path is not None]
    check_targets([file for file in files if not is_of_a_check(file)], force=force)


def write_reports(
    results: Sequence[Record], junit_file: Path | None, markdown_file: Path | None, *, force: bool
) -> None:
    """Write the requested report files.

    Args:
        results: records of `verify`.
        junit_file: for the JUnit report, if any.
        markdown_file: for the summary of a pull request, if any.
        force: whether a file that is no report may be replaced.

    Raises:
        OutputError: a file cannot be written.
    """
    for path, render in ((junit_file, junit.junit), (markdown_file, pull_request.markdown)):
        if path is not None:
            with staged_file(path, force=force or is_of_a_check(path)) as staged:
                staged.write_text(render(results), encoding="utf-8")
