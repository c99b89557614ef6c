"""Whether a model is slower than it was, beyond chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.gpu import differences
from vit_deploy.core.host import Host
from vit_deploy.errors import DataError
from vit_deploy.performance.confidence import Interval, unpaired_interval
from vit_deploy.performance.latency import Case, Latency
from vit_deploy.performance.saved_results import latency_in, read_document

SAME_HOST = ("cpu", "architecture", "cores")
AGAIN = "make it again with vit-deploy bench --save"


@dataclass(frozen=True)
class Change:
    """How the median of a case changed.

    Args:
        latency: now.
        before: the same case in the baseline.
        interval: the interval of the ratio; None for too few calls.
        allowed: the ratio that is still accepted.
    """

    latency: Latency
    before: Latency
    interval: Interval | None
    allowed: float

    @property
    def ratio(self) -> float:
        """The ratio of the medians, now to then."""
        return self.latency.p50_ms / self.before.p50_ms

    @property
    def regressed(self) -> bool:
        """Whether it is slower than allowed beyond chance."""
        return self.interval is not None and self.interval.low > self.allowed

    @property
    def remarks(self) -> tuple[str, ...]:
        """What may explain a change, and is no reason against comparing."""
        then, now = self.before.gpu, self.latency.gpu
        if not self.latency.on_gpu:
            return ()
        if then is None or now is None:
            whose = "the baseline" if then is None else "this run"
            return (f"{_named(self.latency)}: {whose} does not tell which GPU it was, so another one is not excluded",)
        if then.driver is not None and now.driver is not None and then.driver != now.driver:
            return (f"{_named(self.latency)}: the GPU's driver is {now.driver}, {then.driver} in the baseline",)
        return ()

    @property
    def words(self) -> str:
        """The figure, its interval and what follows from it."""
        spread = "so few calls say nothing about chance"
        if self.interval is not None:
            spread = f"95 % interval {_percent(self.interval.low)} to {_percent(self.interval.high)}"
        verdict = "slower than allowed" if self.regressed else "no regression"
        if not self.regressed and self.ratio > self.allowed:
            verdict = "slower than allowed, but that may be chance: measure longer"
        figures = f"p50 {_ms(self.latency)}, {_ms(self.before)} in the baseline"
        allowed = f"{100 * (self.allowed - 1):g} % allowed"
        return f"{_named(self.latency)}: {figures}: {_percent(self.ratio)} ({spread}; {allowed}): {verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        ends = None if self.interval is None else [self.interval.low, self.interval.high]
        judged = {"ratio": self.ratio, "interval": ends, "allowed": self.allowed, "regressed": self.regressed}
        return {**judged, "remarks": list(self.remarks)}


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def read_results(path: Path) -> list[Latency]:
    """The results in a file that `bench --save` wrote.

    Raises:
        DataError: no such file, other content, or times of an emulator.
    """
    document = read_document(path, ("bench",), fix=AGAIN)
    results = [latency_in(path, record) for record in document["results"]]
    if any(result.emulated for result in results):
        raise DataError(f"{path} has times of an emulator, which are no baseline", fix="measure on a real machine")
    return results


def refuse_baseline(
    cases: Sequence[Case], host: Host, baseline: Sequence[Latency], *, any_host: bool = False, on: str | None = None
) -> None:
    """Say before anything is measured that nothing of it could be compared.

    Args:
        cases: that are going to be measured; what really executes them, and with how many threads where it is not
            said, is not yet known.
        host: that measures them.
        baseline: the result of `read_results`.
        any_host: whether results of other machines count.
        on: the address of the machine; None for this one.

    Raises:
        DataError: the baseline has none of the cases, or has them only of another machine.
    """
    found = [earlier for case in cases for earlier in baseline if _is_of(earlier, case)]
    if not found:
        raise _none_of(len(cases))
    if not any_host and not any(_same_machine(earlier, host, on) for earlier in found):
        raise _of_another_machine(found[0], host, ())


def changes(
    results: Sequence[Latency], baseline: Sequence[Latency], *, max_regression: float, any_host: bool = False
) -> list[Change]:
    """Each result that the baseline has too, compared with it.

    A case is found again by its artifact's path, else by the last two names of it, and by runtime, provider, batch,
    threads, streams and whether CUDA graphs were used. One that ran on a GPU is compared with one on a GPU of the same
    name, divided (MIG) or not as that, and with the same power limit; another card of the kind will do.

    Args:
        results: the results of this run.
        baseline: the result of `read_results`.
        max_regression: the slowdown that is allowed, as a fraction.
        any_host: compare with another machine or GPU where the baseline has no result of the same.

    Raises:
        DataError: nothing was measured before, or on another machine.
    """
    candidates = [(latency, _alike(latency, results, baseline)) for latency in results]
    pairs = [
        (latency, before)
        for latency, alike in candidates
        if (before := _chosen(latency, alike, any_host=any_host)) is not None
    ]
    if not pairs:
        for latency, alike in candidates:
            if alike:
                here = [earlier for earlier in alike if _same_machine(earlier, latency.host, latency.on)]
                before = next(iter([*here, *alike]))
                raise _of_another_machine(before, latency.host, differences(before.gpu, latency.gpu))
        raise _none_of(len(results))
    return [
        Change(latency, before, unpaired_interval(latency.rounds, before.rounds), 1 + max_regression)
        for latency, before in pairs
    ]


def not_compared(results: Sequence[Latency], compared: Sequence[Change]) -> list[str]:
    """The results that the baseline does not have, in words."""
    known = {id(change.latency) for change in compared}
    return [
        f"{_named(result)} by {result.provider}: not in the baseline of this machine"
        f"{' and GPU' if result.on_gpu else ''}, so it was not compared"
        for result in results
        if id(result) not in known
    ]


def _alike(latency: Latency, results: Sequence[Latency], baseline: Sequence[Latency]) -> list[Latency]:
    """The same case in the baseline, measured on any machine."""
    same = [earlier for earlier in baseline if _is_of(earlier, latency.case) and earlier.provider == latency.provider]
    if exact := [earlier for earlier in same if earlier.case.artifact == latency.case.artifact]:
        return exact
    # Of another folder, if it is the only one and not itself among what was measured now.
    moved = {earlier.case.artifact for earlier in same} - {result.case.artifact for result in results}
    return [earlier for earlier in same if earlier.case.artifact in moved] if len(moved) == 1 else []


def _chosen(latency: Latency, alike: Sequence[Latency], *, any_host: bool) -> Latency | None:
    here = [
        earlier
        for earlier in alike
        if _same_machine(earlier, latency.host, latency.on) and not differences(earlier.gpu, latency.gpu)
    ]
    at_the_address = [earlier for earlier in here if earlier.on == latency.on]
    return next(iter([*at_the_address, *here, *(alike if any_host else ())]), None)


def _is_of(before: Latency, case: Case) -> bool:
    then = before.case
    if case.threads is not None and case.threads != then.threads:
        return False
    asked, had = (
        (one.runtime, one.batch, one.streams, one.cuda_graph, one.image_size, one.signature) for one in (case, then)
    )
    return asked == had and then.artifact.parts[-2:] == case.artifact.parts[-2:]


def _same_machine(before: Latency, host: Host, on: str | None) -> bool:
    if before.on is not None and on is not None and before.on != on:
        return False
    return all(getattr(before.host, name) == getattr(host, name) for name in SAME_HOST)


def _none_of(count: int) -> DataError:
    return DataError(
        f"the baseline has none of the {count} cases that were requested",
        fix="measure the same artifacts, runtimes, providers, batches, threads and streams as then",
    )


def _of_another_machine(before: Latency, host: Host, gpu: Sequence[str]) -> DataError:
    then, now = before.host.to_dict(), host.to_dict()
    other = [f"{name} {then[name]}, now {now[name]}" for name in SAME_HOST if then[name] != now[name]]
    what = "GPU" if gpu and not other else "machine"
    return DataError(
        f"the baseline was measured on another {what}: {'; '.join([*other, *gpu]) or before.on}",
        fix="measure a baseline on this one, or compare all the same with --any-host",
    )


def _ms(latency: Latency) -> str:
    return f"{latency.p50_ms:.2f} ms" if latency.p50_ms >= 10 else f"{latency.p50_ms:.3g} ms"


def _named(latency: Latency) -> str:
    return f"{latency.on}: {latency.case}" if latency.on else str(latency.case)
