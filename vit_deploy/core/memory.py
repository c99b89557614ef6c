"""The memory that this process holds, and the most that it has held."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path


def rss_mb(status: Path = Path("/proc/self/status")) -> float | None:
    """The memory this process holds now, in 10^6 bytes; None where it cannot be told."""
    with contextlib.suppress(OSError):
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
    return None


def peak_rss_mb(status: Path = Path("/proc/self/status")) -> float | None:
    """The most memory this process has held, in 10^6 bytes; None where it cannot be told.

    On Linux it is not `ru_maxrss`, which a process inherits from the one that started it.
    """
    with contextlib.suppress(OSError):
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
