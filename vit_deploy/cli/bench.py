"""`vit-deploy bench`: how fast does an artifact run on this machine?"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vit_deploy.cli.bench_table import COLUMNS, SORTS, best_of, row
from vit_deploy.cli.on_hosts import Answer, On, RemotePython, SshConfig, Timeout, ask_hosts, gaps
from vit_deploy.cli.options import MOST_THREADS, Artifacts, Force, Json, Quiet, Verbose, parse_counts, parse_percent
from vit_deploy.cli.output import save_document
from vit_deploy.cli.profiles import show_profiles

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.cli.output import Output
    from vit_deploy.latency import Latency
    from vit_deploy.profiling import Profile
    from vit_deploy.regression import Change


def bench(
    artifacts: Artifacts,
    runtime: Annotated[
        list[str] | None, typer.Option(help="Engine; repeat for more.", show_default="all that can run it")
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu, cuda, …, or a TFLite delegate's path; repeat for more.", show_default="the engine's own"
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Images a call.")] = "1",
    threads: Annotated[
        str | None, typer.Option(metavar="N,…", help="For the work in one call.", show_default="all cores")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Calls at the same time, each with a model of its own.")] = 1,
    seconds: Annotated[float, typer.Option(help="Of calls for each case.")] = 3.0,
    runs: Annotated[int | None, typer.Option(min=1, help="Calls for each case, instead of seconds.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="p50, p90, p99, throughput, load, memory or size, best first.", show_default="as given"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the results with all samples, for --baseline.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Compare with results that were saved; exit 1 if slower.")
    ] = None,
    max_regression: Annotated[
        str, typer.Option(metavar="N%", help="How much slower a median may be, beyond chance.")
    ] = "5%",
    profile: Annotated[
        bool, typer.Option("--profile", help="Time each operator too, in a run of its own, where the engine tells.")
    ] = False,
    any_host: Annotated[bool, typer.Option("--any-host", help="Compare with a baseline of another machine.")] = False,
    on: On = None,
    remote_python: RemotePython = "python3",
    ssh_config: SshConfig = None,
    timeout: Timeout = 600.0,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Time artifacts side by side, each in a process of its own: load, first run, steady state, memory."""
    from vit_deploy import report
    from vit_deploy.bench import Case, Plan
    from vit_deploy.bench import bench as run
    from vit_deploy.cli.output import Output
    from vit_deploy.host import read_host
    from vit_deploy.regression import changes, read_results, refuse_baseline
    from vit_deploy.runtimes import RUNTIMES, installed_takers
    from vit_deploy.staging import check_targets
    from vit_deploy.targets import open_artifact

    if sort is not None and sort not in SORTS:
        raise typer.BadParameter(f"--sort is {sort!r}; expected one of {', '.join(SORTS)}")
    allowed = parse_percent(max_regression, "--max-regression")
    out = Output("bench", as_json=json, quiet=quiet)
    batches = parse_counts(batch, "--batch")
    counts: Sequence[int | None] = parse_counts(threads, "--threads", MOST_THREADS) if threads else [None]
    executors: Sequence[str | None] = provider or [None]
    plan = Plan(seconds=None if runs else seconds, runs=runs)
    if save is not None:
        check_targets([save], force=force)
    before = read_results(baseline) if baseline is not None else []

    def compare(measured: Sequence[Latency]) -> list[Change]:
        if baseline is None:
            return []
        return changes(measured, before, max_regression=allowed, any_host=any_host)

    if on:
        arguments = ["bench", "--streams", streams, "--seconds", seconds, "--batch", ",".join(map(str, batches))]
        arguments += [*_repeated("--runtime", runtime), *_repeated("--provider", provider)]
        arguments += ["--threads", threads] if threads else []
        arguments += ["--runs", runs] if runs else []
        arguments += ["--profile"] if profile else []
        answers = ask_hosts(
            out,
            artifacts,
            [*map(str, arguments)],
            on=on,
            python=remote_python,
            config=ssh_config,
            timeout_s=timeout,
        )
        return _finish_remote(out, answers, save, force=force, sort=sort, compare=compare)

    def cases() -> list[Case]:
        return [
            Case(path, name, executor, images, count, streams)
            for path in artifacts
            for executor in executors
            for name, images, count in itertools.product(
                runtime or installed_takers(open_artifact(path).format, executor), batches, counts
            )
        ]

    for name in runtime or ():
        RUNTIMES.check(name)
    with out.progress() as progress:
        progress("reading the bundles")
        targets = cases()
        if baseline is not None:
            refuse_baseline(targets, read_host(), before, any_host=any_host)
        results = run(targets, plan, lambda doing, done: progress(f"{done:4.0%} {doing}"))
        profiles = _profiles(results, progress) if profile else []
    with _saved_at_any_rate(save, lambda: _records(results, (), profiles), force=force):
        compared = compare(results)
    records = _records(results, compared, profiles)
    ok = not any(change.regressed for change in compared)
    if save is not None:
        save_document(report.document("bench", records, ok=ok), save, force=force)
    _note(out, [(str(each.case), each) for each in results])
    _tell(out, results, compared)
    shown, best = sorted(results, key=SORTS[sort]) if sort else results, best_of(results, sort)
    code = out.finish(records, ok=ok, columns=COLUMNS, rows=[row(each, results[0], best) for each in shown])
    show_profiles(out, records)
    return code


def _records(
    results: Sequence[Latency], compared: Sequence[Change], profiles: Sequence[Profile]
) -> list[dict[str, Any]]:
    from vit_deploy.latency import to_json

    by_case = {id(change.latency): change.to_dict() for change in compared}
    records = [to_json(result, results[0]) | {"baseline": by_case.get(id(result))} for result in results]
    return [found.added_to(record) for found, record in zip(profiles, records, strict=True)] if profiles else records


@contextlib.contextmanager
def _saved_at_any_rate(
    save: Path | None, records: Callable[[], list[dict[str, Any]]], *, force: bool
) -> Iterator[None]:
    """Keep what was measured, even though there is nothing in the baseline that it can be compared with."""
    from vit_deploy import report
    from vit_deploy.errors import DataError

    try:
        yield
    except DataError:
        if save is not None:
            save_document(report.document("bench", records(), ok=False), save, force=force)
        raise


def _note(out: Output, named: Sequence[tuple[str, Latency]]) -> None:
    """What has to be known of the cases; what is true of all of them once."""
    told: dict[str, list[str]] = {}
    for name, result in named:
        for text in result.notes:
            told.setdefault(text, []).append(name)
    for text, names in told.items():
        for name in ["all cases"] if len(names) == len(named) > 1 else names:
            out.note(f"{name}: {text}")


def _tell(out: Output, results: Sequence[Latency], compared: Sequence[Change]) -> None:
    from vit_deploy.regression import not_compared

    for change in compared:
        (out.finding if change.regressed else out.note)(change.words)
        for text in change.remarks:
            out.note(text)
    for text in not_compared(results, compared) if compared else ():
        out.note(text)


def _profiles(results: Sequence[Latency], progress: Callable[[str], object]) -> list[Profile]:
    from vit_deploy.profiling import profile_or_reason

    profiles = []
    for result in results:
        progress(f"profiling {result.case}")
        profiles.append(profile_or_reason(result.case))
    return profiles


def _repeated(option: str, values: Sequence[str] | None) -> list[str]:
    return [word for value in values or () for word in (option, value)]


def _finish_remote(
    out: Output,
    answers: Sequence[Answer],
    save: Path | None,
    *,
    force: bool,
    sort: str | None,
    compare: Callable[[Sequence[Latency]], list[Change]],
) -> int:
    from vit_deploy import report
    from vit_deploy.saved_results import latency_in

    records = [record for answer in answers for record in answer.records]
    measured = [latency_in(record["on"], record) for record in records]
    with _saved_at_any_rate(save, lambda: records, force=force):
        compared = compare(measured)
    by_case = {id(change.latency): change.to_dict() for change in compared}
    records = [{**record, "baseline": by_case.get(id(each))} for record, each in zip(records, measured, strict=True)]
    _tell(out, measured, compared)
    ok = all(answer.ok for answer in answers) and not any(change.regressed for change in compared)
    if save is not None:
        missing = [each.gap for each in answers if each.error is not None]
        save_document(report.document("bench", records, ok=ok, skipped=missing), save, force=force)
    _note(out, [(f"{each.on}: {each.case}", each) for each in measured])
    # Ratios are taken within a machine, and so are the best.
    named = list(zip((str(record["on"]) for record in records), measured, strict=True))
    first = dict(reversed(named))
    best = {on: best_of([each for name, each in named if name == on], sort) for on in first}
    if sort is not None:
        named.sort(key=lambda pair: SORTS[sort](pair[1]))
    rows = [(on, *row(each, first[on], best[on])) for on, each in named]
    rows += [(*each.row, *["-"] * (len(COLUMNS) - 1)) for each in answers if each.error is not None]
    code = out.finish(records, ok=ok, skipped=gaps(out, answers), columns=("machine", *COLUMNS), rows=rows)
    show_profiles(out, records)
    return code
