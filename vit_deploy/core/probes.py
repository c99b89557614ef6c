"""Questions to a Python like this one, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from vit_deploy.core.child_processes import ending, python

PATIENCE_S = 120  # for an engine to be imported, and to open a device
MARK = "ANSWER"


@dataclass(frozen=True)
class Answer:
    """What the process said.

    Args:
        value: plain JSON values, its last answer; None where it gave none.
        failure: why it did not end well, in words; empty where it did.
        said: all that it printed.
    """

    value: Any
    failure: str = ""
    said: str = ""


def ask(*program: str) -> Answer:
    """Run a program; its answers are lines of its own that begin with `ANSWER`, the last of which counts.

    Args:
        program: arguments of Python: `-c` and a text, or a file and its arguments.
    """
    try:
        done = subprocess.run(python(*program), capture_output=True, text=True, errors="replace", timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        return Answer(None, f"it took more than {PATIENCE_S} s")
    _, mark, behind = done.stdout.rpartition(MARK)
    value, said = json.loads(behind.partition("\n")[0]) if mark else None, f"{done.stdout}\n{done.stderr}"
    if done.returncode == 0 and mark:
        return Answer(value, said=said)
    lines = done.stderr.strip().splitlines()
    if done.returncode <= 0 or not lines:
        lines.append(f"its process ended, {ending(done.returncode)}")
    return Answer(value, lines[-1], said)
