"""How fast artifacts are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vit_deploy.api.given import (
    Artifacts,
    PathLike,
    Tell,
    artifact_paths,
    as_text,
    as_tuple,
    path,
    silent,
    size_text,
)
from vit_deploy.api.results import BenchOutcome
from vit_deploy.core import documents
from vit_deploy.core.documents import Record
from vit_deploy.core.host import read_host
from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.core.options.parsing import milliseconds
from vit_deploy.core.staging import check_targets
from vit_deploy.errors import DataError, Failed, UsageError, VitDeployError
from vit_deploy.performance.bench import failed_case, runnable
from vit_deploy.performance.latency import Latency, to_json
from vit_deploy.performance.options import BaselineOptions
from vit_deploy.performance.profilers import Profile
from vit_deploy.performance.regression import Change, changes, read_results, refuse_baseline
from vit_deploy.performance.requests import cases_for, measure, plan_for, profiles
from vit_deploy.performance.saved_results import latency_in, save_document
from vit_deploy.remote import hosts_file
from vit_deploy.remote.android.adb import is_android
from vit_deploy.remote.android.devices import PhoneAnswer, time_phones
from vit_deploy.remote.android.timing import check_options
from vit_deploy.remote.emulation.machine import is_emulated
from vit_deploy.remote.hosts import Watch, ask_hosts
from vit_deploy.remote.options import HostOptions
from vit_deploy.runtimes import RUNTIMES
from vit_deploy.verification.targets import open_to_time


def bench(
    artifacts: Artifacts,
    *,
    runtime: str | Sequence[str] | None = None,
    provider: str | Sequence[str] | None = None,
    batch: int | Sequence[int] = BenchOptions.batch,
    threads: int | Sequence[int] | None = None,
    streams: int = 1,
    seconds: float = BenchOptions.seconds,
    device: int = 0,
    cuda_graph: bool = False,
    runtime_files: PathLike | None = None,
    browser: str | None = None,
    image_size: int | tuple[int, int] | str | None = None,
    signature: str | None = None,
    under: float | str | None = None,
    one_at_a_time: bool = False,
    runs: int | None = None,
    save: PathLike | None = None,
    baseline: PathLike | None = None,
    max_regression: float | None = None,
    profile: bool = False,
    any_host: bool = False,
    force: bool = False,
    on: str | Sequence[str] = (),
    hosts: PathLike | None = None,
    group: str | Sequence[str] = (),
    remote_python: str = HostOptions.remote_python,
    ssh_config: PathLike | None = None,
    timeout: float = BenchOptions.timeout,
    benchmark_model: PathLike | None = None,
    progress: Tell = silent,
    note: Tell = silent,
    watch: Watch | None = None,
) -> BenchOutcome:
    """Time artifacts side by side, each in a process of its own: load, first run, steady state, memory.

    Args:
        artifacts: an artifact, a `.keras` file or a bare model file, or several; a folder of artifacts stands for those
            inside it.
        runtime: engine, or several; None takes all that are installed and take the format.
        provider: what executes the graph, or several; None takes each engine's usual one.
        batch: images a call; of several numbers each in turn.
        threads: threads for the work inside one call, likewise; None takes all cores.
        streams: calls at the same time, each with a model of its own.
        seconds: length of the calls of each case together.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        image_size: pixels of a side, (height, width), or "384x512", of files for several sizes
            or for any; None for their own.
        signature: the one that runs them, of a file with several; None for the first.
        under: a time in milliseconds, or as "5ms", under which the calls of the largest batch stay, which is looked
            for; None for no search.
        one_at_a_time: whether each case is loaded, measured and freed before the next.
        runs: calls for each case, instead of seconds.
        save: file for the results with all samples.
        baseline: file of results that were saved, to compare with.
        max_regression: fraction that a median may be slower, beyond chance; None for 5 percent.
        profile: whether each operator is timed too, in a run of its own.
        any_host: whether a baseline of another machine counts.
        force: whether the file of `save` is replaced.
        on: other machines to run on instead, as "ssh://user@host".
        hosts: file that names machines, with groups and options of each.
        group: of the machines in that file, those that are in one of these; none for all.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each step of a case, as loading; with `on` for each machine too, sending included.
        benchmark_model: LiteRT's program of that name, which times TFLite files on Android devices ("adb://serial").
        progress: called with what is being done.
        note: called with what has to be known meanwhile: what could not be taken away from another machine.
        watch: called with the name of another machine and what it does; None tells `progress` of all.

    Returns:
        What was measured of each case, and on each machine; `ok` if nothing regressed and every machine answered.

    Raises:
        UsageError: arguments that exclude each other.
        ConfigError: a runtime that does not take a format, or numbers that cannot be.
        ArtifactError: an artifact that is missing or was changed.
        DataError: a baseline that cannot be read, or has nothing to compare with.
        MissingEngineError, EngineError: not one case can be timed; the error of the first.
        RemoteError: no machine answered.
        OutputError: a file that is there, or cannot be written.
    """
    options = BenchOptions(
        runtime=as_tuple(runtime),
        provider=as_tuple(provider),
        batch=as_tuple(batch),
        threads=as_tuple(threads),
        streams=streams,
        seconds=seconds,
        device=device,
        cuda_graph=cuda_graph,
        runtime_files=as_text(runtime_files),
        browser=browser,
        image_size=size_text(image_size),
        signature=signature,
        under=_milliseconds(under),
        one_at_a_time=one_at_a_time,
        runs=runs,
        profile=profile,
        timeout=timeout,
    )
    compared = BaselineOptions(path(save), path(baseline), max_regression, any_host)
    compared.refuse_idle()
    machines = HostOptions(as_tuple(on), remote_python, path(ssh_config), timeout, path(hosts), as_tuple(group))
    found = artifact_paths(artifacts)
    found_machines = hosts_file.machines(machines) if machines.elsewhere else []
    if (
        emulated := [host.name for host in found_machines if is_emulated(host.address)]
    ) and compared.baseline is not None:
        raise UsageError(f"--baseline and {', '.join(emulated)}: times of an emulator are compared with nothing")
    plan_for(options)  # refuses values that cannot be, before anything is done
    if phones := [host for host in found_machines if is_android(host.address)]:
        if len(phones) < len(found_machines):
            raise UsageError(
                "adb:// and other machines: what they give is not the same", fix="time them one after the other"
            )
        if machines.remote_python != HostOptions.remote_python or machines.ssh_config is not None:
            raise UsageError("--remote-python and --ssh-config: adb:// takes neither", fix="leave them out")
        if compared.save is not None or compared.baseline is not None:
            raise UsageError(
                "--save and --baseline keep samples, and benchmark_model gives a statistic",
                fix="leave them out; take --json",
            )
        program = check_options(options, path(benchmark_model))
        answers = time_phones(phones, program, found, options, progress, note, watch)
        return _of_phones(answers, named=machines.hosts is not None)
    if benchmark_model is not None:
        raise UsageError("--benchmark-model is for Android devices", fix="name one with --on adb://SERIAL")
    if compared.save is not None:
        check_targets([compared.save], force=force)
    before = read_results(compared.baseline) if compared.baseline is not None else []
    if machines.elsewhere:
        return _bench_elsewhere(
            found, options, compared, before, machines, force=force, progress=progress, note=note, watch=watch
        )
    return _bench_here(found, options, compared, before, force=force, progress=progress)


def _of_phones(answers: Sequence[PhoneAnswer], *, named: bool) -> BenchOutcome:
    unanswered = {answer.host.name: answer.error for answer in answers if answer.error is not None}
    failed = tuple(failure for answer in answers for failure in answer.failed)
    return BenchOutcome(
        results=(),
        records=tuple(record for answer in answers for record in answer.records),
        ok=not (unanswered or failed),
        skipped=tuple(f"{name}: {error.message}" for name, error in unanswered.items()),
        failed=failed,
        unanswered=unanswered,
        hosts=tuple(answer.to_dict() for answer in answers) if named else (),
        phones=tuple(timing for answer in answers for timing in answer.timings),
    )


def _milliseconds(given: float | str | None) -> float | None:
    if not isinstance(given, str):
        return given
    try:
        return milliseconds(given)
    except ValueError as error:
        raise UsageError(f"--under is {given!r}; expected {error}") from error


def _bench_here(
    found: Sequence[Path],
    options: BenchOptions,
    compared: BaselineOptions,
    before: Sequence[Latency],
    *,
    force: bool,
    progress: Tell,
) -> BenchOutcome:
    for name in options.runtime:
        RUNTIMES.check(name)
    progress("reading the artifacts")
    cases, failed = runnable(cases_for(options, [(target, open_to_time(target).format) for target in found]))
    if compared.baseline is not None:
        refuse_baseline(cases, read_host(), before, any_host=compared.any_host)
    results = measure(
        options,
        cases,
        lambda doing, done: progress(f"{done:4.0%} {doing}"),
        left_out=lambda case, error: failed.append(failed_case(case, error)),
    )
    emulated = sorted({result.provider for result in results if result.emulated})
    if compared.baseline is not None and emulated:
        raise UsageError(f"--baseline and {', '.join(emulated)}: times of an emulator are compared with nothing")
    measured = [to_json(result, results[0]) for result in results]
    found_profiles = profiles(results, progress) if options.profile else []
    return _compared(
        results,
        lambda changed: _with_profiles(_with_baseline(measured, results, changed), found_profiles),
        compared,
        before,
        failed=failed,
        force=force,
    )


def _with_profiles(records: Sequence[Record], found: Sequence[Profile]) -> list[Record]:
    if not found:
        return list(records)
    return [profile.added_to(record) for profile, record in zip(found, records, strict=True)]


def _with_baseline(records: Sequence[Record], results: Sequence[Latency], changed: Sequence[Change]) -> list[Record]:
    by_case = {id(change.latency): change.to_dict() for change in changed}
    return [{**record, "baseline": by_case.get(id(result))} for record, result in zip(records, results, strict=True)]


def _bench_elsewhere(
    found: Sequence[Path],
    options: BenchOptions,
    compared: BaselineOptions,
    before: Sequence[Latency],
    hosts: HostOptions,
    *,
    force: bool,
    progress: Tell,
    note: Tell,
    watch: Watch | None,
) -> BenchOutcome:
    answers = ask_hosts(
        found,
        "bench",
        options,
        hosts,
        runtimes=options.runtime,
        providers=options.provider,
        progress=progress,
        note=note,
        watch=watch,
    )
    records = [record for answer in answers for record in answer.records]
    results = [latency_in(record["on"], record) for record in records]
    return _compared(
        results,
        lambda changed: _with_baseline(records, results, changed),
        compared,
        before,
        unanswered={answer.host: answer.error for answer in answers if answer.error is not None},
        hosts=tuple(answer.to_dict() for answer in answers) if hosts.hosts is not None else (),
        force=force,
    )


def _compared(
    results: Sequence[Latency],
    records: Callable[[Sequence[Change]], list[Record]],
    compared: BaselineOptions,
    before: Sequence[Latency],
    *,
    failed: Sequence[Failed] = (),
    unanswered: Mapping[str, VitDeployError] | None = None,
    hosts: Sequence[Record] = (),
    force: bool,
) -> BenchOutcome:
    """Compare what was measured with the baseline, and save it.

    Args:
        results: what was measured.
        records: gives the results as plain JSON values, with how they changed.
        compared: what they are compared with, and where they are saved.
        before: results of the baseline.
        failed: artifacts that could not be timed.
        unanswered: why a machine gave no results.
        hosts: the machines of a file, and what came of each.
        force: whether a file that is there is replaced.
    """
    gaps = unanswered or {}
    skipped = tuple(f"{host}: {error.message}" for host, error in gaps.items())
    with _saved_at_any_rate(compared.save, lambda: records(()), force=force):
        changed = (
            changes(results, before, max_regression=compared.allowed, any_host=compared.any_host)
            if compared.baseline is not None
            else []
        )
    outcome = BenchOutcome(
        results=tuple(results),
        records=tuple(records(changed)),
        ok=not (gaps or failed or any(change.regressed for change in changed)),
        skipped=skipped,
        failed=tuple(failed),
        changes=tuple(changed),
        unanswered=gaps,
        hosts=tuple(hosts),
    )
    if compared.save is not None:
        # What failed is not in it, so that what was measured can be a baseline.
        saved = documents.document("bench", outcome.records, ok=outcome.ok, skipped=skipped)
        save_document(saved, compared.save, force=force)
    return outcome


@contextlib.contextmanager
def _saved_at_any_rate(save: Path | None, records: Callable[[], list[Record]], *, force: bool) -> Iterator[None]:
    """Keep what was measured, even though there is nothing in the baseline that it can be compared with."""
    try:
        yield
    except DataError:
        if save is not None:
            save_document(documents.document("bench", records(), ok=False), save, force=force)
        raise
