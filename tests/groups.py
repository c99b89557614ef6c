"""Groups of processes, as the system tells of them."""

from __future__ import annotations

from pathlib import Path


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
