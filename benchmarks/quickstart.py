"""What do the first commands of the README print?"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.job import Job
from benchmarks.processes import environment
from benchmarks.progress import progress
from benchmarks.records import Result, facts_line, run_facts
from benchmarks.targets import Target
from vit_deploy.core.child_processes import python

SCALE = "tiny"
COMMANDS: Mapping[str, str] = {
    "export": "vit-deploy export {scale} --format savedmodel --format onnx --format tflite -o artifacts/{scale}",
    "verify": "vit-deploy verify artifacts/{scale}/onnx-fp32 artifacts/{scale}/tflite-fp32",
}
COLUMNS = "120"  # of the terminal


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result with what each command printed."""
    scale = "pico" if job.quick else SCALE
    facts = run_facts()
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        yield scale, {**facts, "scale": scale, "printed": {name: _printed(name, scale, folder) for name in COMMANDS}}


def _printed(name: str, scale: str, folder: str) -> dict[str, Any]:
    command = COMMANDS[name].format(scale=scale)
    progress(command)
    run = python("-m", *shlex.split(command.replace("vit-deploy", "vit_deploy", 1)))
    started = time.monotonic()
    said = subprocess.run(
        run, cwd=folder, env={**environment(), "COLUMNS": COLUMNS}, check=True, stdout=subprocess.PIPE, text=True
    )
    return {"command": command, "seconds": time.monotonic() - started, "stdout": said.stdout}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """What the README's title above them promises."""
    shown = results.get(SCALE)
    seconds = sum(each["seconds"] for each in shown["printed"].values()) if shown else None
    yield Target(
        f"`{SCALE}` exported in three formats, and two of them verified again: seconds", 60.0, seconds, digits=1
    )


def render(results: Mapping[str, Result]) -> str:
    """The commands and what they printed."""
    parts = []
    for result in results.values():
        parts.append(facts_line(result))
        for name in COMMANDS:
            parts += [f"`{result['printed'][name]['command']}`", screen(result, name)]
    return "\n\n".join(parts)


def screen(result: Result, name: str) -> str:
    """What one command printed, as a block of code."""
    lines = [line.rstrip() for line in result["printed"][name]["stdout"].splitlines()]
    return "\n".join(["```", *[line for line in lines if line], "```"])
