"""Pages and tables of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from vit_deploy.api.given import PathLike, Tell, paths, silent
from vit_deploy.api.results import ReportOutcome
from vit_deploy.core.staging import check_targets, staged_file
from vit_deploy.errors import UsageError
from vit_deploy.performance.report import WRITERS, written
from vit_deploy.performance.report.documents import gather

TITLE = "Latency of Vision Transformers"


def report(
    files: PathLike | Sequence[PathLike],
    output: PathLike | Sequence[PathLike],
    *,
    title: str = TITLE,
    force: bool = False,
    progress: Tell = silent,
) -> ReportOutcome:
    """Show what was measured: latency against size and accuracy, percentiles, scaling, operators, hosts.

    Args:
        files: documents of `bench`, and of `evaluate`, `verify`, `export` or `quantize` for the same artifacts.
        output: files to write, whose names end in .html, .md or .csv.
        title: heading of the page.
        force: whether files that are there are replaced.
        progress: called with what is being done.

    Returns:
        The paths of the files that were written.

    Raises:
        UsageError: a file name with another ending.
        DataError: a document that cannot be read, or none in which something was timed.
        MissingEngineError: the library that draws is not installed.
        OutputError: a file that is there, or cannot be written.
    """
    targets = paths(output, "output")
    for target in targets:
        if target.suffix not in WRITERS:
            raise UsageError(f"--output is {target.name!r}; expected a name that ends in {', '.join(WRITERS)}")
        WRITERS.check(target.suffix)
    check_targets(targets, force=force)
    progress("reading the results")
    gathered = gather(paths(files, "files"))
    texts = {}
    for target in targets:
        progress(f"making {target}")
        texts[target] = written(gathered, title, target.suffix)
    for target, text in texts.items():
        with staged_file(target, force=force) as staged:
            staged.write_text(text, encoding="utf-8")
    count = len(gathered.cases)
    records = [{"path": str(target), "bytes": target.stat().st_size, "cases": count} for target in texts]
    return ReportOutcome(tuple(texts), tuple(records))
