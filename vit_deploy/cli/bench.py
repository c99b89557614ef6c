"""`vit-deploy bench`: the speed of artifacts on this machine and on others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vit_deploy.cli.bench_table import SORTS, best_of, columns_of, row
from vit_deploy.cli.on_hosts import Answer, On, RemotePython, SshConfig, ask_hosts, gaps
from vit_deploy.cli.options import Artifacts, Force, OutputOptions, parse_percent, split_at_commas
from vit_deploy.cli.output import save_document
from vit_deploy.cli.profiles import show_profiles
from vit_deploy.cli.signature import Without, command
from vit_deploy.core.options import RuntimeOptions

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.cli.output import Output
    from vit_deploy.performance.latency import Latency
    from vit_deploy.performance.profilers import Profile
    from vit_deploy.performance.regression import Change


@command
def bench(
    artifacts: Artifacts,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Engine; repeat for more, or join by commas.",
            show_default="all that can run it",
            callback=split_at_commas,
        ),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu, cuda, …, or a TFLite delegate's path; repeat for more, or join by commas.",
            show_default="the engine's own",
            callback=split_at_commas,
        ),
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,…", help="Images a call.")] = "1",
    threads: Annotated[
        str | None, typer.Option(metavar="N,…", help="For the work in one call.", show_default="all cores")
    ] = None,
    streams: Annotated[int, typer.Option(min=1, help="Calls at the same time, each with a model of its own.")] = 1,
    seconds: Annotated[float, typer.Option(help="Of calls for each case.")] = 3.0,
    under: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Find the largest batch whose calls take no longer, as 5ms."),
    ] = None,
    one_at_a_time: Annotated[
        bool, typer.Option("--one-at-a-time", help="Load, measure and free each case before the next, without turns.")
    ] = False,
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
    timeout: Annotated[
        float,
        typer.Option(
            min=1, help="Seconds for each step of a case, as loading; with --on for each machine too, sending included."
        ),
    ] = 600.0,
    force: Force = False,
    *,
    running: Annotated[RuntimeOptions, Without("threads", "provider")],
    printing: OutputOptions,
) -> int:
    """Time artifacts side by side, each in a process of its own: load, first run, steady state, memory."""
    from vit_deploy.cli.bench_asked import Asked
    from vit_deploy.cli.output import Output
    from vit_deploy.core import documents
    from vit_deploy.core.artifact_folders import each_bundle
    from vit_deploy.core.host import read_host
    from vit_deploy.core.staging import check_targets
    from vit_deploy.performance.bench import runnable
    from vit_deploy.performance.regression import changes, read_results, refuse_baseline
    from vit_deploy.runtimes import RUNTIMES

    if sort is not None and sort not in SORTS:
        raise typer.BadParameter(f"--sort is {sort!r}; expected one of {', '.join(SORTS)}")
    allowed = parse_percent(max_regression, "--max-regression")
    out = Output("bench", printing)
    artifacts = each_bundle(artifacts)
    called = (batch, threads, streams, running.device, running.cuda_graph)
    asked = Asked(runtime, provider, *called, under, one_at_a_time, seconds, runs, timeout, profile)
    plan = asked.plan
    if save is not None:
        check_targets([save], force=force)
    before = read_results(baseline) if baseline is not None else []

    def compare(measured: Sequence[Latency]) -> list[Change]:
        if baseline is None:
            return []
        return changes(measured, before, max_regression=allowed, any_host=any_host)

    if on:
        answers = ask_hosts(
            out, artifacts, asked.arguments, on=on, python=remote_python, config=ssh_config, timeout_s=timeout
        )
        return _finish_remote(out, answers, save, force=force, sort=sort, compare=compare)

    for name in runtime or ():
        RUNTIMES.check(name)
    with out.progress() as progress:
        progress("reading the bundles")
        targets, failed = runnable(asked.cases(artifacts))
        if baseline is not None:
            refuse_baseline(targets, read_host(), before, any_host=any_host)
        results = asked.measured(targets, plan, lambda doing, done: progress(f"{done:4.0%} {doing}"))
        profiles = _profiles(results, progress) if profile else []
    with _saved_at_any_rate(save, lambda: _records(results, (), profiles), force=force):
        compared = compare(results)
    records = _records(results, compared, profiles)
    ok = not any(change.regressed for change in compared)
    if save is not None:
        save_document(documents.document("bench", records, ok=ok and not failed), save, force=force)
    _note(out, [(str(each.case), each) for each in results])
    for gap in failed:
        out.finding(f"{gap.name} was not timed: {gap.error}")
    _tell(out, results, compared)
    shown, best = sorted(results, key=SORTS[sort]) if sort else results, best_of(results, sort)
    columns = columns_of(results)
    rows = [row(each, results[0], best, columns) for each in shown]
    code = out.finish(records, ok=ok, failed=failed, columns=columns, rows=rows)
    show_profiles(out, records)
    return code


def _records(
    results: Sequence[Latency], compared: Sequence[Change], profiles: Sequence[Profile]
) -> list[dict[str, Any]]:
    from vit_deploy.performance.latency_json import to_json

    by_case = {id(change.latency): change.to_dict() for change in compared}
    records = [to_json(result, results[0]) | {"baseline": by_case.get(id(result))} for result in results]
    return [found.added_to(record) for found, record in zip(profiles, records, strict=True)] if profiles else records


@contextlib.contextmanager
def _saved_at_any_rate(
    save: Path | None, records: Callable[[], list[dict[str, Any]]], *, force: bool
) -> Iterator[None]:
    """Keep what was measured, even though there is nothing in the baseline that it can be compared with."""
    from vit_deploy.core import documents
    from vit_deploy.errors import DataError

    try:
        yield
    except DataError:
        if save is not None:
            save_document(documents.document("bench", records(), ok=False), save, force=force)
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
    from vit_deploy.performance.regression import not_compared

    for change in compared:
        (out.finding if change.regressed else out.note)(change.words)
        for text in change.remarks:
            out.note(text)
    for text in not_compared(results, compared) if compared else ():
        out.note(text)


def _profiles(results: Sequence[Latency], progress: Callable[[str], object]) -> list[Profile]:
    from vit_deploy.performance.profilers import profile_or_reason

    profiles = []
    for result in results:
        progress(f"profiling {result.case}")
        profiles.append(profile_or_reason(result.case))
    return profiles


def _finish_remote(
    out: Output,
    answers: Sequence[Answer],
    save: Path | None,
    *,
    force: bool,
    sort: str | None,
    compare: Callable[[Sequence[Latency]], list[Change]],
) -> int:
    from vit_deploy.core import documents
    from vit_deploy.performance.saved_results import latency_in

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
        save_document(documents.document("bench", records, ok=ok, skipped=missing), save, force=force)
    _note(out, [(f"{each.on}: {each.case}", each) for each in measured])
    # Ratios are taken within a machine, and so are the best.
    named = list(zip((str(record["on"]) for record in records), measured, strict=True))
    first = dict(reversed(named))
    best = {on: best_of([each for name, each in named if name == on], sort) for on in first}
    if sort is not None:
        named.sort(key=lambda pair: SORTS[sort](pair[1]))
    columns = columns_of(measured)
    rows = [(on, *row(each, first[on], best[on], columns)) for on, each in named]
    rows += [(*each.row, *["-"] * (len(columns) - 1)) for each in answers if each.error is not None]
    code = out.finish(records, ok=ok, skipped=gaps(out, answers), columns=("machine", *columns), rows=rows)
    show_profiles(out, records)
    return code
