"""Artifacts timed on several Android devices at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.errors import Failed, RemoteError, VitDeployError
from vit_deploy.remote.android.adb import device_at
from vit_deploy.remote.android.timing import PhoneTiming, tflite_artifacts, time_on
from vit_deploy.remote.hosts import Answer, one_of
from vit_deploy.remote.hosts_file import Host

MOST_AT_ONCE = 64  # devices; others wait for one that is done


@dataclass(frozen=True)
class PhoneAnswer:
    """What came of one device.

    Args:
        host: the device.
        timings: what was measured.
        failed: cases that its program refused, where others were measured.
        error: why there is nothing, or nothing more.
    """

    host: Host
    timings: tuple[PhoneTiming, ...] = ()
    failed: tuple[Failed, ...] = ()
    error: VitDeployError | None = None

    @property
    def records(self) -> tuple[dict[str, Any], ...]:
        """Its results in plain JSON values, with the address of a device that a file names."""
        named = {} if self.host.name == self.host.address else {"address": self.host.address}
        return tuple({**timing.to_dict(), **named} for timing in self.timings)

    def to_dict(self) -> dict[str, Any]:
        """The device and what came of it, as of any machine of a file."""
        ok = self.error is None and not self.failed
        return Answer(self.host.name, self.records, ok, self.error, self.host).to_dict()

    @property
    def words(self) -> str:
        """What came of it, in short."""
        count = len(self.timings)
        return f"{count} {'result' if count == 1 else 'results'}" if count else "no answer"


def time_phones(
    devices: Sequence[Host],
    program: Path,
    paths: Sequence[Path],
    options: BenchOptions,
    progress: Callable[[str], object],
    note: Callable[[str], object],
    watch: Callable[[str, str], object] | None,
) -> list[PhoneAnswer]:
    """Time artifacts on several devices at once.

    A caller that is interrupted ends what runs there, and takes it away, before it ends itself.

    Args:
        devices: by name and address.
        program: LiteRT's `benchmark_model` for them.
        paths: of TFLite artifacts.
        options: what is timed, and for how long.
        progress: called with what is being done.
        note: called with what could not be taken away from a device.
        watch: called with the name of a device and what it does; None tells `progress` of all.

    Raises:
        ArtifactError, ConfigError: what is no TFLite artifact, or no address.
        MissingEngineError: there is no adb.
        RemoteError: no device gave anything; says why each did not.
    """
    artifacts = tflite_artifacts(paths)
    for host in devices:
        device_at(host.address, host.timeout)
    stop = threading.Event()

    def ask(host: Host) -> PhoneAnswer:
        def tell(doing: str) -> None:
            if watch is None:
                progress(f"{host.name}: {doing}")
            else:
                watch(host.name, doing)

        timings: list[PhoneTiming] = []
        refused: list[Failed] = []
        error: VitDeployError | None = None
        try:
            for found in time_on(host, program, artifacts, options, tell=tell, warn=note, stop=stop):
                if isinstance(found, Failed):
                    refused.append(found)
                else:
                    timings.append(found)
        except RemoteError as lost:
            error = lost
        if refused and not timings:
            error = one_of([failure.error for failure in refused] + ([] if error is None else [error]))
        answer = PhoneAnswer(host, tuple(timings), tuple(refused) if timings else (), error)
        if watch is not None:
            watch(host.name, answer.words)
        return answer

    with ThreadPoolExecutor(min(len(devices), MOST_AT_ONCE)) as pool:
        try:
            answers = list(pool.map(ask, devices))
        except BaseException:  # an interrupt: what runs there would go on
            stop.set()
            raise
    if not any(answer.timings for answer in answers):
        raise one_of([answer.error for answer in answers if answer.error is not None])
    return answers
