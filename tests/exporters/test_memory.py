"""The largest scale is exported in bounded memory: the whole command, with the reference and the proof."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from vit_deploy.core import cost
from vit_deploy.core.config import ViTConfig

pytestmark = pytest.mark.slow

# Exports once, then says the largest resident memory of that process, in bytes.
MEASURED = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-m", "vit_deploy", *sys.argv[1:]]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason=f"{resource.RUSAGE_CHILDREN=} counts in kilobytes on Linux alone")
@pytest.mark.parametrize(("format", "times"), [("onnx", 4), ("savedmodel", 4), ("tflite", 6)])
def test_huge_takes_at_most_so_many_times_its_weights(format, times, tmp_path):
    command = ["export", "huge", "--patch-size", "14", "--format", format, "-o", tmp_path, "-q", "--json"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *map(str, command)], capture_output=True, text=True)
    code, peak = map(int, done.stdout.splitlines()[-1].split())
    assert code == 0, done.stderr
    assert peak <= times * 4 * cost.num_parameters(ViTConfig.from_scale("huge", patch_size=14))
