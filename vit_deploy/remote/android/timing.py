"""TFLite artifacts timed on Android devices by LiteRT's own program."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options.commands import BATCH, BenchOptions
from vit_deploy.errors import ConfigError, RemoteError, UsageError, VitDeployError
from vit_deploy.remote.android import benchmark_model
from vit_deploy.remote.android.adb import ASK_S, Device, device_at
from vit_deploy.remote.android.benchmark_model import Statistic
from vit_deploy.remote.hosts_file import Host

PROGRAM = "benchmark_model"
RUNTIME, FORMAT = "litert", "tflite"
XNNPACK, CPU = "xnnpack", "cpu"
REMARK = "the statistic that benchmark_model prints, not samples of our own: compared with nothing"
NOT_EXECUTABLE = 126  # what a shell gives, and for what is there and cannot be run


@dataclass(frozen=True)
class PhoneTiming:
    """What was measured of one artifact on one device.

    Args:
        on: the device's name.
        artifact: the artifact's folder.
        provider: "xnnpack" or "cpu".
        batch: images a call, which the file says.
        threads: of the interpreter.
        bytes: of the file.
        statistic: what the program printed.
        device: model, version of Android and processor's interface, as the device says.
        plan: seconds or runs that were asked for.
    """

    on: str
    artifact: Path
    provider: str
    batch: int
    threads: int
    bytes: int
    statistic: Statistic
    device: dict[str, str]
    plan: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the fields that `bench` has for any result, as far as the program says them."""
        figures = self.statistic.to_dict()
        absent = ["p90_ms", "p99_ms", "peak_rss_mb", *(name for name in ("p50_ms", "std_ms") if figures[name] is None)]
        mean = self.statistic.mean_ms
        return {
            "artifact": str(self.artifact),
            "runtime": RUNTIME,
            "provider": self.provider,
            "batch": self.batch,
            "threads": self.threads,
            "samples_ns": [],
            **figures,
            "p90_ms": None,
            "p99_ms": None,
            "peak_rss_mb": None,
            "throughput_per_s": 1e3 * self.batch / mean if mean else None,
            "bytes": self.bytes,
            "statistic": PROGRAM,
            "remarks": [REMARK, *self._of_the_delegate()],
            "failures": [f"{name} cannot be told" for name in absent],
            "plan": self.plan,
            "android": self.device,
            "on": self.on,
        }

    def _of_the_delegate(self) -> list[str]:
        """What the program says otherwise than the provider that it was asked for."""
        if self.provider != XNNPACK:
            return []
        if self.statistic.delegated is None:
            return ["benchmark_model does not say that XNNPACK took anything: it may have run without"]
        taken, nodes = self.statistic.delegated
        return [] if taken == nodes else [f"XNNPACK took {taken} of {nodes} operators; others ran without"]


def check_options(options: BenchOptions, program: Path | None) -> Path:
    """Refuse what LiteRT's program is not asked for; gives its file.

    Raises:
        UsageError: such options, or no program.
        ConfigError: a file that is not there.
    """
    unusual = {
        "--runtime": set(options.runtime) - {RUNTIME},
        "--provider": set(options.provider) - {XNNPACK, CPU},
        "--batch": tuple(options.batch) != BATCH,
        "--streams": options.streams != 1,
        "--under": options.under is not None,
        "--profile": options.profile,
        "--cuda-graph": options.cuda_graph,
        "--device": options.device != 0,
        "--image-size": options.image_size is not None,
        "--signature": options.signature is not None,
        "--runtime-files": options.runtime_files is not None,
        "--browser": options.browser is not None,
    }
    if given := [name for name, is_given in unusual.items() if is_given]:
        raise UsageError(
            f"{', '.join(given)}: benchmark_model times a TFLite file as it is, with XNNPACK or without",
            fix="leave it out, or take --provider xnnpack|cpu, --threads, --seconds and --runs",
        )
    if program is None:
        raise UsageError(
            "an Android device has no Python: adb:// times with LiteRT's benchmark_model",
            fix="name its file for the device's processor with --benchmark-model",
        )
    if not program.is_file():
        raise ConfigError(f"there is no file {program}", fix="check --benchmark-model")
    return program


def time_phones(
    devices: Sequence[Host],
    program: Path,
    paths: Sequence[Path],
    options: BenchOptions,
    progress: Callable[[str], object],
    note: Callable[[str], object],
    watch: Callable[[str, str], object] | None,
) -> tuple[list[PhoneTiming], dict[str, VitDeployError]]:
    """Time artifacts on several devices at once; what was measured, and why others gave nothing.

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

    def ask(host: Host) -> list[PhoneTiming] | RemoteError:
        def tell(doing: str) -> None:
            if watch is None:
                progress(f"{host.name}: {doing}")
            else:
                watch(host.name, doing)

        try:
            return time_on(host, program, artifacts, options, tell=tell, warn=note)
        except RemoteError as error:
            return error

    with ThreadPoolExecutor(len(devices)) as pool:
        answers = list(pool.map(ask, devices))
    measured = [timing for answer in answers if isinstance(answer, list) for timing in answer]
    errors: dict[str, VitDeployError] = {
        host.name: answer for host, answer in zip(devices, answers, strict=True) if isinstance(answer, RemoteError)
    }
    if len(errors) == len(devices):
        raise RemoteError(
            "; ".join(dict.fromkeys(error.message for error in errors.values())),
            fix="; ".join(dict.fromkeys(error.fix for error in errors.values())),
        )
    return measured, errors


def time_on(
    host: Host,
    program: Path,
    artifacts: Sequence[Artifact],
    options: BenchOptions,
    *,
    tell: Callable[[str], object],
    warn: Callable[[str], object],
) -> list[PhoneTiming]:
    """Time artifacts on a device, one after the other; nothing stays there.

    Args:
        host: the device.
        program: LiteRT's `benchmark_model` for it.
        artifacts: TFLite artifacts.
        options: what is timed, and for how long.
        tell: called with what is being done.
        warn: called with what could not be taken away.

    Raises:
        ConfigError: an address that cannot be.
        MissingEngineError: there is no adb.
        RemoteError: the device is not ready, or the program does not run or gives no timings.
    """
    device = device_at(host.address, host.timeout)
    tell(f"asking {device}")
    device.check()
    facts = device.facts()
    folder = device.new_folder()
    try:
        there = f"{folder}/{PROGRAM}"
        tell(f"sending {program.name}")
        device.push(program, there)
        _check_program(device, there, program, facts)
        found = []
        for artifact in artifacts:
            graph = f"{folder}/model.tflite"
            tell(f"sending {artifact.directory.name}")
            device.push(artifact.model_path, graph)
            for provider in options.provider or (XNNPACK,):
                for threads in options.threads or (_cores(device),):
                    tell(f"timing {artifact.directory.name}")
                    statistic = _timed(device, there, graph, provider, threads, options)
                    plan = {"seconds": options.seconds} if options.runs is None else {"runs": options.runs}
                    size = artifact.model_path.stat().st_size
                    path = artifact.directory
                    batch = int(artifact.input.batch or 1)
                    found.append(PhoneTiming(host.name, path, provider, batch, threads, size, statistic, facts, plan))
        return found
    finally:
        if said := device.remove(folder):
            warn(f"{host.name} could not be cleaned up, and keeps {folder}: {said}")


def tflite_artifacts(paths: Sequence[Path]) -> list[Artifact]:
    """Artifacts that LiteRT's program takes.

    Raises:
        ArtifactError: an artifact that is missing or was changed.
        ConfigError: of another format.
    """
    found = [read_artifact(path) for path in paths]
    if others := [str(artifact.directory) for artifact in found if artifact.format != FORMAT]:
        raise ConfigError(
            f"{', '.join(others)}: benchmark_model takes TFLite files alone", fix="export with --format tflite"
        )
    return found


def _check_program(device: Device, there: str, program: Path, facts: dict[str, str]) -> None:
    code, said = device.shell(f"chmod 700 {there} && {there} --help", ASK_S)
    if code >= NOT_EXECUTABLE or "graph" not in said:
        last = " ".join(said.split())[-200:] or f"exit {code}"
        raise RemoteError(
            f"{device} does not run {program}: {last}",
            fix=f"give LiteRT's benchmark_model for Android on {facts['abi'] or 'its processor'}",
        )


def _cores(device: Device) -> int:
    _, said = device.shell("grep -c ^processor /proc/cpuinfo", ASK_S)
    return int(said.strip()) if said.strip().isdigit() and int(said) else os.cpu_count() or 1


def _timed(device: Device, there: str, graph: str, provider: str, threads: int, options: BenchOptions) -> Statistic:
    asked = benchmark_model.arguments(
        graph, threads=threads, xnnpack=provider == XNNPACK, seconds=options.seconds, runs=options.runs
    )
    code, said = device.shell(shlex.join([there, *asked]), options.timeout)
    if code:
        last = " ".join(said.split())[-300:]
        raise RemoteError(
            f"{device}: benchmark_model ended with exit {code}: {last or 'it said nothing'}",
            fix="give one of a version that takes this file",
        )
    return benchmark_model.read(said)
