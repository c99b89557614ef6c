"""Groups of processes, as the system tells of them."""

from __future__ import annotations

import time
from pathlib import Path

GONE_S = 20.0  # in which the system has taken away what was killed


def members(group):
    """The processes of a group that still run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(process.name)
    return found


def threads_called(group, name):
    """How many threads of a group have a name."""
    found = 0
    for member in members(group):
        for thread in Path(f"/proc/{member}/task").iterdir():
            try:
                found += (thread / "comm").read_text().strip() == name
            except OSError:  # it has ended
                continue
    return found


def is_gone(group):
    """Whether nothing of a group runs any longer; a process that was killed may take a moment."""
    end = time.monotonic() + GONE_S
    while members(group):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
