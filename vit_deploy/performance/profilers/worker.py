"""The process that profiles one case; it answers one JSON request: {"artifact", "runtime", …}.

The answer is {"profile": [{"operator", "calls", "ms", "share"}, …]}, or an error as `performance.worker` gives it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.stderr import private_pipes
from vit_deploy.errors import VitDeployError
from vit_deploy.performance.profilers import CALLS, PROFILERS, WARMUP, OperatorTime, Profiler, summary
from vit_deploy.performance.worker import artifact_to_time, golden_images


def main() -> int:
    """Answer the one request on stdin.

    Returns:
        The exit status.
    """
    requests, replies = private_pipes()
    code = 0
    try:
        found = _profile(json.loads(requests.readline()))
        answer: dict[str, Any] = {"profile": [dataclasses.asdict(operator) for operator in found]}
    except VitDeployError as error:
        answer, code = {"error": {"message": error.message, "fix": error.fix}}, 1
    replies.write(json.dumps(answer) + "\n")
    replies.flush()
    return code


def _profile(case: Mapping[str, Any]) -> list[OperatorTime]:
    artifact = artifact_to_time(Path(case["artifact"]), check_digests=False)  # they were checked before
    artifact = artifact.taken_for(case.get("signature"), case.get("image_size"))
    golden = golden_images(artifact)
    images = np.ascontiguousarray(golden[np.arange(case["batch"]) % len(golden)])
    profiler: Profiler = PROFILERS.load(case["runtime"])()
    return summary(profiler.times(artifact, images, threads=case["threads"], warmup=WARMUP, calls=CALLS))


if __name__ == "__main__":
    sys.exit(main())
