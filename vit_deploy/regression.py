"""Is a model slower than it was, or is that chance?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.confidence import Interval, unpaired_interval
from vit_deploy.errors import DataError
from vit_deploy.latency import Latency, from_json
from vit_deploy.report import SCHEMA

SAME_HOST = ("cpu", "architecture", "cores")
AGAIN = "make it anew with vit-deploy bench --save"


@dataclass(frozen=True)
class Change:
    """How the median of a case changed.

    Args:
        latency: now.
        ratio: of the medians, now to then.
        interval: where the true ratio lies; None where a single call says nothing.
        allowed: the ratio that is still accepted.
    """

    latency: Latency
    ratio: float
    interval: Interval | None
    allowed: float

    @property
    def regressed(self) -> bool:
        """Whether it is slower than allowed beyond chance."""
        return self.interval is not None and self.interval.low > self.allowed

    @property
    def words(self) -> str:
        """The figure, its interval and what follows from it."""
        spread = "a single call says nothing about chance"
        if self.interval is not None:
            spread = f"95 % interval {_percent(self.interval.low)} to {_percent(self.interval.high)}"
        verdict = "slower than allowed" if self.regressed else "no regression"
        if not self.regressed and self.ratio > self.allowed:
            verdict = "slower than allowed, but that may be chance: measure longer"
        return f"{self.latency.case}: {_percent(self.ratio)} against the baseline ({spread}): {verdict}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        ends = None if self.interval is None else [self.interval.low, self.interval.high]
        return {"ratio": self.ratio, "interval": ends, "allowed": self.allowed, "regressed": self.regressed}


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def read_results(path: Path) -> list[Latency]:
    """The results in a file that `bench --save` wrote.

    Raises:
        DataError: no such file, or other content.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", fix=AGAIN) from error
    if not isinstance(document, dict) or document.get("command") != "bench" or document.get("schema") != SCHEMA:
        raise DataError(f"{path} is no result of vit-deploy bench", fix=AGAIN)
    try:
        return [from_json(each) for each in document["results"]]
    except (KeyError, TypeError, ValueError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} is damaged: {detail}", fix=AGAIN) from error


def changes(
    results: Sequence[Latency], baseline: Sequence[Latency], *, max_regression: float, any_host: bool = False
) -> list[Change]:
    """Each result that the baseline has too, compared with it.

    A case is found again by its artifact's path, else by the last two names of it, and by runtime, provider, batch,
    threads and streams.

    Args:
        results: of this run.
        baseline: from `read_results`.
        max_regression: how much slower it may be, as a fraction.
        any_host: compare with another machine.

    Raises:
        DataError: nothing was measured before, or on another machine.
    """
    pairs = [(latency, before) for latency in results if (before := _found(latency, baseline)) is not None]
    if not pairs:
        raise DataError(
            f"the baseline has none of the {len(results)} cases that were measured",
            fix="measure the same artifacts, runtimes, batches and threads as then",
        )
    if not any_host:
        _check_hosts(pairs)
    return [
        Change(
            latency,
            latency.p50_ms / before.p50_ms,
            unpaired_interval(latency.rounds, before.rounds),
            1 + max_regression,
        )
        for latency, before in pairs
    ]


def _found(latency: Latency, baseline: Sequence[Latency]) -> Latency | None:
    alike = [each for each in baseline if _measured_with(each) == _measured_with(latency)]
    path = latency.case.artifact
    exact = [each for each in alike if each.case.artifact == path]
    named = [each for each in alike if each.case.artifact.parts[-2:] == path.parts[-2:]]
    return next(iter(exact), None) or (named[0] if len(named) == 1 else None)


def _measured_with(latency: Latency) -> tuple[object, ...]:
    case = latency.case
    return (case.runtime, latency.provider, case.batch, case.threads, case.streams)


def _check_hosts(pairs: Sequence[tuple[Latency, Latency]]) -> None:
    for latency, before in pairs:
        then, now = before.host.to_dict(), latency.host.to_dict()
        if other := [f"{name} {then[name]}, now {now[name]}" for name in SAME_HOST if then[name] != now[name]]:
            raise DataError(
                f"the baseline was measured on another machine: {'; '.join(other)}",
                fix="measure a baseline on this one, or compare all the same with --any-host",
            )
