"""TFLite artifacts timed on Android devices by LiteRT's own program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options.commands import BATCH, BenchOptions
from vit_deploy.errors import ConfigError, Failed, RemoteError, UsageError
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


def time_on(
    host: Host,
    program: Path,
    artifacts: Sequence[Artifact],
    options: BenchOptions,
    *,
    tell: Callable[[str], object],
    warn: Callable[[str], object],
    stop: threading.Event,
) -> Iterator[PhoneTiming | Failed]:
    """Time artifacts on a device, one after the other; nothing stays there, and nothing goes on there.

    Args:
        host: the device.
        program: LiteRT's `benchmark_model` for it.
        artifacts: TFLite artifacts.
        options: what is timed, and for how long.
        tell: called with what is being done.
        warn: called with what could not be taken away.
        stop: once it is set, what runs there is ended.

    Yields:
        What was measured of each case, or why the program refused it.

    Raises:
        ConfigError: an address that cannot be.
        MissingEngineError: there is no adb.
        RemoteError: the device is not ready, was lost or is late, or the program does not run.
    """
    device = device_at(host.address, host.timeout, stop)
    tell(f"asking {device}")
    device.check()
    facts = device.facts()
    folder = device.new_folder()
    try:
        there = f"{folder}/{PROGRAM}"
        tell(f"sending {program.name}")
        if said := device.push(program, there):
            raise _not_put(device, program, said)
        _check_program(device, folder, program, facts)
        for artifact in artifacts:
            graph = f"{folder}/model.tflite"
            tell(f"sending {artifact.directory.name}")
            if said := device.push(artifact.model_path, graph):
                yield _failed(artifact, _not_put(device, artifact.model_path, said))
                continue
            for provider in options.provider or (XNNPACK,):
                for threads in options.threads or (_cores(device),):
                    tell(f"timing {artifact.directory.name}")
                    found = _timed(device, folder, graph, provider, threads, options, host.timeout)
                    if isinstance(found, RemoteError):
                        yield _failed(artifact, found)
                        continue
                    plan = {"seconds": options.seconds} if options.runs is None else {"runs": options.runs}
                    size = artifact.model_path.stat().st_size
                    path = artifact.directory
                    batch = int(artifact.input.batch or 1)
                    yield PhoneTiming(host.name, path, provider, batch, threads, size, found, facts, plan)
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


def _not_put(device: Device, path: Path, said: str) -> RemoteError:
    return RemoteError(f"{path.name} cannot be put on {device}: {said}", fix="check its room and its state")


def _failed(artifact: Artifact, error: RemoteError) -> Failed:
    return Failed(str(artifact.directory), artifact.format, artifact.precision, error)


def _check_program(device: Device, folder: str, program: Path, facts: dict[str, str]) -> None:
    there = f"{folder}/{PROGRAM}"
    device.shell(f"chmod 700 {there}", ASK_S)
    code, said = device.run(folder, [there, "--help"], ASK_S)
    if code >= NOT_EXECUTABLE or "graph" not in said:
        last = " ".join(said.split())[-200:] or f"exit {code}"
        raise RemoteError(
            f"{device} does not run {program}: {last}",
            fix=f"give LiteRT's benchmark_model for Android on {facts['abi'] or 'its processor'}",
        )


def _cores(device: Device) -> int:
    _, said = device.shell("grep -c ^processor /proc/cpuinfo", ASK_S)
    if not said.strip().isdigit() or not int(said):
        raise RemoteError(f"{device} does not say how many processors it has", fix="say --threads N")
    return int(said)


def _timed(
    device: Device, folder: str, graph: str, provider: str, threads: int, options: BenchOptions, limit_s: float
) -> Statistic | RemoteError:
    """What the program says of a file, or how it refuses it."""
    asked = benchmark_model.arguments(
        graph,
        threads=threads,
        xnnpack=provider == XNNPACK,
        seconds=options.seconds,
        runs=options.runs,
        most_s=limit_s,
    )
    code, said = device.run(folder, [f"{folder}/{PROGRAM}", *asked], limit_s)
    case = f"{device} with {provider} and {threads} {'thread' if threads == 1 else 'threads'}"
    if code:
        last = " ".join(said.split())[-300:]
        return RemoteError(
            f"{case}: benchmark_model ended with exit {code}: {last or 'it said nothing'}",
            fix="give one of a version that takes this file",
        )
    try:
        return benchmark_model.read(said)
    except RemoteError as error:
        return RemoteError(f"{case}: {error.message}", fix=error.fix)
