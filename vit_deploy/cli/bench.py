"""`vit-deploy bench`: the speed of artifacts on this machine and on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.bench_table import SORTS, best_of, columns_of, headings, row
from vit_deploy.cli.options import Artifacts, Force, OutputOptions
from vit_deploy.cli.phone_table import PHONE_COLUMNS, phone_rows
from vit_deploy.cli.profiles import show_profiles
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option
from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.performance.options import BaselineOptions
from vit_deploy.remote.options import AndroidOptions, HostOptions

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.api.results import BenchOutcome
    from vit_deploy.cli.output import Output
    from vit_deploy.performance.latency import Latency


@command
def bench(
    artifacts: Artifacts,
    sort: Annotated[
        str | None,
        Option(
            metavar="FIGURE",
            help="p50, p90, p99, throughput, load, memory or size, best first.",
            show_default="as given",
            values="vit_deploy.cli.bench_table:SORTS",
        ),
    ] = None,
    force: Force = False,
    *,
    measuring: BenchOptions,
    comparing: BaselineOptions,
    hosts: HostOptions,
    android: AndroidOptions,
    printing: OutputOptions,
) -> int:
    """Time artifacts side by side, each in a process of its own: load, first run, steady state, memory."""
    from vit_deploy.api import timing as api
    from vit_deploy.cli.output import Output

    if sort is not None and sort not in SORTS:
        raise typer.BadParameter(f"--sort is {sort!r}; expected one of {', '.join(SORTS)}")
    out = Output("bench", printing)
    options = {**vars(measuring), **vars(comparing), **vars(hosts), **vars(android)}
    with out.watching(hosts.elsewhere) as (progress, watch):
        found = api.bench(artifacts, **options, force=force, progress=progress, note=out.note, watch=watch)
    _tell(out, found)
    if found.phones:
        return out.show(found, columns=PHONE_COLUMNS, rows=phone_rows(found), skipped=False)
    columns, rows = _table(found, sort)
    code = out.show(found, columns=headings(columns, sort), rows=rows, skipped=False)
    show_profiles(out, found.records)
    return code


def _tell(out: Output, found: BenchOutcome) -> None:
    """What the table has no room for: what has to be known of the cases, and how they differ from a baseline."""
    from vit_deploy.performance.regression import not_compared

    for error in found.unanswered.values():
        out.finding(str(error))
    _note(out, [(f"{result.on}: {result.case}" if result.on else str(result.case), result) for result in found])
    if emulated := dict.fromkeys(result.on or result.provider for result in found if result.emulated):
        out.finding(f"{', '.join(emulated)}: times of an emulator, which say nothing about a real machine")
    for remark in dict.fromkeys(remark for record in found.records for remark in record["remarks"] if found.phones):
        out.finding(f"{', '.join(dict.fromkeys(timing.on for timing in found.phones))}: {remark}")
    for gap in found.failed:
        out.finding(f"{gap.name} was not timed: {gap.error}")
    for change in found.changes:
        (out.finding if change.regressed else out.note)(change.words)
        for text in change.remarks:
            out.note(text)
    for text in not_compared(found, found.changes) if found.changes else ():
        out.note(text)


def _note(out: Output, named: Sequence[tuple[str, Latency]]) -> None:
    """What has to be known of the cases; what is true of all of them once."""
    told: dict[str, list[str]] = {}
    for name, result in named:
        for text in result.notes:
            told.setdefault(text, []).append(name)
    for text, names in told.items():
        for name in ["all cases"] if len(names) == len(named) > 1 else names:
            out.note(f"{name}: {text}")


def _table(found: BenchOutcome, sort: str | None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows; ratios are taken within a machine, and so are the best."""
    columns = columns_of(found)
    first: dict[str | None, Latency] = {}
    for result in found:
        first.setdefault(result.on, result)
    best = {on: best_of([result for result in found if result.on == on], sort) for on in first}
    rows = [
        (*([result.on] if result.on else []), *row(result, first[result.on], best[result.on], columns))
        for result in (sorted(found, key=SORTS[sort]) if sort else found)
    ]
    rows += [(host, "no answer", *["-"] * (len(columns) - 1)) for host in found.unanswered]
    elsewhere = bool(found.unanswered) or any(on is not None for on in first)
    return ("machine", *columns) if elsewhere else columns, rows
