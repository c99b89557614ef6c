"""In what folder and environment does every process run that is measured?"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from vit_deploy.core.child_processes import python

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """This process's own, in which this package is found, TensorFlow is quiet and Keras runs on it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = {"PYTHONPATH": os.pathsep.join(paths)}
    return {**os.environ, **found, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


def run_command(*arguments: str) -> None:
    """Run one of vit-deploy's own commands in silence; the benchmark ends where it fails."""
    command = python("-m", "vit_deploy", *arguments, "--quiet")
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)
