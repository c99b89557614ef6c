"""What was measured of a case: raw samples, the figures that are derived of them, and both as JSON."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_deploy.core.host import Host
from vit_deploy.performance.confidence import Interval, median_interval, ratio_interval, unpaired_interval
from vit_deploy.performance.plan import Case, LargestUnder, Plan
from vit_deploy.performance.timing import WINDOW
from vit_deploy.runtimes import GPU_PROVIDERS

if TYPE_CHECKING:  # a device without a GPU does without
    from vit_deploy.core.gpu import Gpu

__all__ = ["FACTS", "FIGURES", "Case", "Latency", "Plan", "to_json"]

SPREAD = 0.1  # of the samples' standard deviation to their mean, past which it is said
DRIFT = 0.1  # between the medians of the slowest and the fastest round, as a fraction of the fastest
BUSY = 0.5  # of a core that others took when the measurement began

FIGURES = (
    *("p50_ms", "p90_ms", "p99_ms", "mean_ms", "min_ms", "std_ms", "throughput_per_s", "load_ms", "first_ms"),
    *("peak_rss_mb", "growth_mb", "preprocess_ms", "transfer_ms", "energy_mj_per_image", "gpu_energy_mj_per_image"),
    *("build_ms", "peak_gpu_mb", "queued_throughput_per_s"),
)
FACTS = ("bytes", "warmup_calls", "flat", "idle", "file_batch", "resting_rss_mb", "energy_j")
CHOSEN = ("image_size", "signature")  # of files for several sizes
# That many a machine or plan does not give.
RARE = {
    *("std_ms", "growth_mb", "preprocess_ms", "transfer_ms", "energy_mj_per_image", "gpu_energy_mj_per_image"),
    *("build_ms", "peak_gpu_mb", "queued_throughput_per_s"),
}


@dataclass(frozen=True)
class Latency:
    """What was measured of one case. Only facts are stored; the statistics are derived.

    Args:
        case: the case, with the number of threads that it really had.
        plan: it was measured by.
        host: it was measured on.
        provider: what really executed the graph.
        samples_ns: the latency of every call, round by round, in nanoseconds.
        load_ms: the time from a cached model file to a loaded model, without the engine's import, in milliseconds.
        first_ms: the latency of the first call, in milliseconds.
        peak_rss_mb: the peak memory of its process, in 10^6 bytes; None where the system does not tell.
        warmup_calls: before the samples, besides the first call.
        flat: whether these came to show no trend.
        idle: whether the engine's threads went to sleep after each round.
        file_batch: that the file is made for, None for any.
        round_calls: the number of samples in each round; empty where all are one round.
        round_ns: the duration of each round in nanoseconds, which with several streams is less than its calls together.
        bytes: the size of the model files.
        resting_rss_mb: the memory of its process with the engine imported and no model, in 10^6 bytes; None likewise.
        preprocess_ns: of turning one JPEG of 640x480 pixels into an input, several times; empty where it cannot be.
        energy_j: the energy of the processors during the rounds, in joules; None where the machine does not count it.
        gpu_energy_j: of the one NVIDIA GPU that it ran on, likewise; None of less than a second of rounds as well.
        placement: the number of operators of each provider; empty where the engine does not tell.
        transfer_ns: of copying the images of a call to a device and its outputs back, several times; the samples do
            not count it. Empty where there is no such device, and for engines that copy within the call.
        on: the address of the machine that measured it; None for this one.
        build_ms: in which an engine was built for this GPU, no part of `load_ms`; None where none was.
        gpu: that it ran on, with its state at both ends of each round; None where it cannot be told, and on processors.
        peak_gpu_mb: the most of the GPU's memory that its process was seen to hold, in 10^6 bytes; None likewise.
        queued_calls: for each round, how many calls were then made in a row of which only the last was waited for;
            empty where calls cannot be made so.
        queued_ns: how long they took.
        remarks: what the engine and its process say of how it ran.
        under: what a search for the largest batch under a time found; None without one.
        emulated: whether the machine is an emulator's, so that the times say nothing about a real one.
        engine: the program that ran it where that is none of Python's: a browser, with the packages in it.
    """

    case: Case
    plan: Plan
    host: Host
    provider: str
    samples_ns: tuple[int, ...]
    load_ms: float
    first_ms: float
    peak_rss_mb: float | None
    warmup_calls: int
    flat: bool
    idle: bool
    file_batch: int | None
    round_calls: tuple[int, ...] = ()
    round_ns: tuple[int, ...] = ()
    bytes: int | None = None
    resting_rss_mb: float | None = None
    preprocess_ns: tuple[int, ...] = ()
    energy_j: float | None = None
    gpu_energy_j: float | None = None
    placement: Mapping[str, int] = field(default_factory=dict)
    transfer_ns: tuple[int, ...] = ()
    on: str | None = None
    build_ms: float | None = None
    gpu: Gpu | None = None
    peak_gpu_mb: float | None = None
    queued_calls: tuple[int, ...] = ()
    queued_ns: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()
    under: LargestUnder | None = None
    emulated: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU executed it."""
        return self.provider in GPU_PROVIDERS

    @property
    def rounds(self) -> list[tuple[int, ...]]:
        """The samples, round by round."""
        ends = list(itertools.accumulate(self.round_calls or (len(self.samples_ns),)))
        return [self.samples_ns[start:end] for start, end in itertools.pairwise([0, *ends])]

    @cached_property
    def p50_interval_ms(self) -> Interval | None:
        """Where the true median lies; None of fewer than six calls."""
        interval = median_interval(self.rounds)
        return None if interval is None else interval.scaled(1e-6)

    def ratio_to(self, base: Latency) -> tuple[float, Interval | None]:
        """The median in relation to that of another case of the same run, and where the true ratio lies."""
        took_turns = self is base or not self.plan.one_at_a_time
        interval = ratio_interval if took_turns else unpaired_interval
        return self.p50_ms / base.p50_ms, interval(self.rounds, base.rounds)

    @property
    def preprocess_ms(self) -> float | None:
        """Median of turning one image file into an input."""
        return float(np.median(self.preprocess_ns)) / 1e6 if self.preprocess_ns else None

    @property
    def transfer_ms(self) -> float | None:
        """Median of copying the images of a call to a device and its outputs back."""
        return float(np.median(self.transfer_ns)) / 1e6 if self.transfer_ns else None

    @property
    def growth_mb(self) -> float | None:
        """Memory that the model took, weights and activations, beyond that of the engine."""
        if self.peak_rss_mb is None or self.resting_rss_mb is None:
            return None
        return self.peak_rss_mb - self.resting_rss_mb

    @property
    def energy_mj_per_image(self) -> float | None:
        """The energy of all processors together, in millijoules."""
        return self._mj_per_image(self.energy_j)

    @property
    def gpu_energy_mj_per_image(self) -> float | None:
        """The energy of the one GPU, in millijoules."""
        return self._mj_per_image(self.gpu_energy_j)

    def _mj_per_image(self, energy_j: float | None) -> float | None:
        return None if energy_j is None else 1e3 * energy_j / (self.case.batch * len(self.samples_ns))

    @property
    def mean_ms(self) -> float:
        """The mean latency of a call."""
        return float(np.mean(self.samples_ns)) / 1e6

    @property
    def std_ms(self) -> float:
        """Standard deviation of the calls; not a number for a single one."""
        return float(np.std(self.samples_ns, ddof=1)) / 1e6 if len(self.samples_ns) > 1 else math.nan

    @property
    def min_ms(self) -> float:
        """The latency of the fastest call."""
        return min(self.samples_ns) / 1e6

    @property
    def p50_ms(self) -> float:
        """The median call."""
        return self._percentile_ms(50)

    @property
    def p90_ms(self) -> float:
        """Nine calls of ten take no longer."""
        return self._percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        """Ninety-nine calls of a hundred take no longer."""
        return self._percentile_ms(99)

    def _percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.samples_ns, percent)) / 1e6

    @property
    def throughput_per_s(self) -> float:
        """Images a second, of all streams together."""
        total_s = sum(self.round_ns if self.case.streams > 1 else self.samples_ns) / 1e9
        return self.case.batch * len(self.samples_ns) / total_s if total_s else math.inf

    @property
    def queued_throughput_per_s(self) -> float | None:
        """Images a second of calls in a row of which only the last is waited for, without copies."""
        total_s = sum(self.queued_ns) / 1e9
        return self.case.batch * sum(self.queued_calls) / total_s if total_s else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What one has to know to read the figures."""
        notes = []
        batch, made_for = self.case.batch, self.file_batch
        if made_for is not None and made_for != batch:
            calls = -(-batch // made_for)
            filled = f", the last filled up from {batch % made_for}" if batch % made_for else ""
            notes.append(
                f"the file is made for batch {made_for}: a batch of {batch} runs as {calls} "
                f"call{'s' * (calls > 1)} of {made_for}{filled}"
            )
        if len(self.placement) > 1:
            total = sum(self.placement.values())
            where = ", ".join(f"{count} on {name}" for name, count in self.placement.items())
            notes.append(f"of {total} operators {where}")
        if self.transfer_ms is not None:
            notes.append(
                f"calls are of the GPU alone; copying the images there and the outputs back, "
                f"{self.transfer_ms:.2f} ms a call, is told apart"
            )
        if self.plan.one_at_a_time:
            notes.append("each case was measured on its own: their rounds took no turns")
        notes += self.remarks
        notes += () if self.gpu is None else self.gpu.notes
        if self.under is not None and self.case.batch == (self.under.batch or 1):
            notes.append(self.under.words)
        if (working := (self.case.threads or 1) * self.case.streams) > self.host.threads:
            notes.append(f"{working} threads share {self.host.cores_in_words}")
        return (*notes, *self.unsteady)

    @property
    def unsteady(self) -> tuple[str, ...]:
        """Why the figures are not to be trusted; empty if they are."""
        return tuple(self._disturbances())

    def _disturbances(self) -> Iterator[str]:
        if not self.flat and self.warmup_calls < WINDOW:
            yield f"{self.warmup_calls} warm-up call{'s' * (self.warmup_calls != 1)}, too few to show a trend"
        elif not self.flat:
            yield f"still getting slower or faster after {self.warmup_calls} warm-up calls"
        if not self.idle:
            yield "its threads kept working between the rounds, which slows the other cases"
        if self.std_ms > SPREAD * self.mean_ms:
            yield f"the calls differ by {self.std_ms / self.mean_ms:.0%}: the machine may be busy"
        medians = [float(np.median(samples)) for samples in self.rounds if samples]
        if len(medians) > 1 and max(medians) > (1 + DRIFT) * min(medians):
            yield f"the slowest round took {max(medians) / min(medians) - 1:.0%} longer than the fastest"
        if self.gpu is not None:
            yield from self.gpu.disturbances
        if self.host.competing is not None and self.host.competing > BUSY:
            yield f"other processes kept {self.host.competing:.1f} cores busy when it began"


def to_json(latency: Latency, base: Latency | None = None) -> dict[str, Any]:
    """One result of the `bench` command; a figure that does not apply is null and named under `failures`.

    Args:
        latency: the latency of one case.
        base: the latency of the case that ratios are taken to, if any.
    """
    case = latency.case
    figures = {name: getattr(latency, name) for name in FIGURES}
    absent = [name for name, value in figures.items() if value is None or not math.isfinite(value)]
    ratio, ratio_range = (None, None) if base is None else latency.ratio_to(base)
    return {
        "artifact": str(case.artifact),
        "runtime": case.runtime,
        "provider": latency.provider,
        "batch": case.batch,
        "threads": case.threads,
        "streams": case.streams,
        "device": case.device,
        "cuda_graph": case.cuda_graph,
        **{name: value for name in CHOSEN if (value := getattr(case, name)) is not None},
        "samples_ns": list(latency.samples_ns),
        "round_calls": list(latency.round_calls),
        "round_ns": list(latency.round_ns),
        **{name: None if name in absent else value for name, value in figures.items()},
        "p50_interval_ms": _ends(latency.p50_interval_ms),
        "ratio": ratio,
        "ratio_interval": _ends(ratio_range),
        **{name: getattr(latency, name) for name in FACTS},
        "preprocess_ns": list(latency.preprocess_ns),
        "transfer_ns": list(latency.transfer_ns),
        "gpu_energy_j": latency.gpu_energy_j,
        "placement": dict(latency.placement),
        "gpu": None if latency.gpu is None else latency.gpu.to_dict(),
        "queued_calls": list(latency.queued_calls),
        "queued_ns": list(latency.queued_ns),
        "largest_under": None if latency.under is None else dataclasses.asdict(latency.under),
        "remarks": list(latency.remarks),
        "notes": list(latency.notes),
        "unsteady": list(latency.unsteady),
        **({"engine": dict(latency.engine)} if latency.engine else {}),
        **({"emulated": True} if latency.emulated else {}),
        "failures": [f"{name} cannot be told" for name in absent if name not in RARE],
        "plan": dataclasses.asdict(latency.plan),
        "host": latency.host.to_dict(),
    }


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
