"""The machine that something was measured on, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vit_deploy.core.processor import ROOT, cpu_model

COMPETING_S = 0.1
UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


@dataclass(frozen=True)
class Host:
    """A machine as one process sees it.

    Args:
        cpu: name of the processor or of its board, by `cpu_model`.
        architecture: "x86_64", "aarch64", …
        cores: that this process really gets: its affinity, or the control group's quota where that is less.
        memory_mb: that this process may use, in 10^6 bytes; None where it cannot be told.
        os: system and release.
        python: version.
        load_1m: processes that were running or waiting over the last minute; None where it cannot be told.
        governor: the governor of the CPU frequency; None where it cannot be told.
        cpu_mhz: the mean over the cores now; None likewise.
        temperature_c: the temperature of the warmest sensor, in degrees Celsius; None likewise.
        competing: cores of those that this process really gets which others kept busy over the last tenth of a second;
            None likewise.
    """

    cpu: str
    architecture: str
    cores: float
    memory_mb: float | None
    os: str
    python: str
    load_1m: float | None
    governor: str | None
    cpu_mhz: float | None = None
    temperature_c: float | None = None
    competing: float | None = None

    @property
    def threads(self) -> int:
        """How many threads can work at once."""
        return max(1, int(self.cores))

    @property
    def cores_in_words(self) -> str:
        """The number of cores for people: "1 core", "1.5 cores"."""
        return f"{self.cores:g} core{'s' * (self.cores != 1)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def read_host(root: Path = ROOT) -> Host:
    """This machine, now.

    Args:
        root: the folder that `proc` and `sys` are in.
    """
    cores = _cores(root)
    return Host(
        cpu=cpu_model(root),
        architecture=platform.machine(),
        cores=cores,
        memory_mb=_memory_mb(root),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        cpu_mhz=_cpu_mhz(root),
        temperature_c=_temperature_c(root),
        competing=_competing(root, cores),
    )


def _cpu_mhz(root: Path) -> float | None:
    # The kernel's own figures are in kHz; cpuinfo's are those of the processor itself.
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [int(text) / 1e3 for text in map(_text, paths) if text and text.isdigit()]
    if not found:
        lines = (line.partition(":") for line in (_text(root / "proc/cpuinfo") or "").splitlines())
        found = [float(value) for key, _, value in lines if key.strip() == "cpu MHz"]
    return sum(found) / len(found) if found else None


def _temperature_c(root: Path) -> float | None:
    texts = map(_text, (root / "sys/class/thermal").glob("thermal_zone*/temp"))
    found = [int(text) / 1e3 for text in texts if text and text.lstrip("-").isdigit()]
    return max(found) if found else None


def _competing(root: Path, cores: float) -> float | None:
    """The cores, of those that this process really gets, that others keep busy while it sleeps."""
    before = _busy_ticks(root)
    if before is None:
        return None
    time.sleep(COMPETING_S)
    after = _busy_ticks(root)
    if after is None:
        return None
    busy = (after - before) / os.sysconf("SC_CLK_TCK") / COMPETING_S
    # With a quota of 2 of 64 cores, 62 can be busy before there are fewer than 2.
    return max(0.0, busy - max(0.0, _allowed() - cores))


def _busy_ticks(root: Path) -> int | None:
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    ticks = None
    for line in (_text(root / "proc/stat") or "").splitlines():
        name, *fields = line.split()
        core = name.removeprefix("cpu")
        if name.startswith("cpu") and core.isdigit() and (allowed is None or int(core) in allowed):
            user, nice, system, _idle, _waiting, *rest = map(int, fields[:8])
            ticks = (ticks or 0) + user + nice + system + sum(rest)
    return ticks


def _cores(root: Path) -> float:
    return min([float(_allowed()), *_cpu_quotas(root)])


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in _group_folders(root, "cpu"):
        quota, _, period = (_text(folder / "cpu.max") or "max").partition(" ")
        if quota == "max":  # version 1 has two files, and -1 for no limit
            quota, period = _text(folder / "cpu.cfs_quota_us") or "-1", _text(folder / "cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _memory_mb(root: Path) -> float | None:
    limits = []
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            limits.append(int(line.split()[1]) * 1024)
    for folder in _group_folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name) or ""
            if limit.isdigit() and int(limit) < UNLIMITED_BYTES:
                limits.append(int(limit))
    return min(limits) / 1e6 if limits else None


def _group_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that this process is in, up to the topmost: a limit anywhere above counts."""
    mount = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base = mount
        elif controller in controllers.split(","):
            base = mount / controller
        else:
            continue
        own = PurePosixPath(path.lstrip("/"))
        # A container often sees its own group as the topmost, whatever its path says; missing folders hold no limit.
        yield from (base / group for group in (own, *own.parents))


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
