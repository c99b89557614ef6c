"""On what machine was something measured, and how much of it may this process use?"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path("/")
UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as a number near 2^63


@dataclass(frozen=True)
class Host:
    """A machine as one process sees it.

    Args:
        cpu: model name.
        architecture: "x86_64", "aarch64", …
        cores: that this process really gets: its affinity, or the control group's quota where that is less.
        memory_mb: that this process may use, in 10^6 bytes; None where it cannot be told.
        os: system and release.
        python: version.
        load_1m: processes that were running or waiting over the last minute; None where it cannot be told.
        governor: of the CPU frequency; None where it cannot be told.
    """

    cpu: str
    architecture: str
    cores: float
    memory_mb: float | None
    os: str
    python: str
    load_1m: float | None
    governor: str | None

    @property
    def threads(self) -> int:
        """How many threads can work at once."""
        return max(1, int(self.cores))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def read_host(root: Path = ROOT) -> Host:
    """This machine, now.

    Args:
        root: where `proc` and `sys` are.
    """
    return Host(
        cpu=_cpu_model(root),
        architecture=platform.machine(),
        cores=_cores(root),
        memory_mb=_memory_mb(root),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def _cpu_model(root: Path) -> str:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware"):
            return value.strip()
    # Boards with Arm cores name themselves in the device tree.
    board = _text(root / "proc/device-tree/model")
    return (board or platform.processor() or "unknown").strip("\0")


def _cores(root: Path) -> float:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *_cpu_quotas(root)])


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
