"""What does the process do that times one case? It takes one JSON request a line, and answers each with one.

    {"artifact", "runtime", "provider", "threads", "batch"}  ->  {"provider", "load_ms", "first_ms", "file_batch"}
    {"warmup": calls or null}                                ->  {"samples_ns", "flat"}
    {"calls", "seconds"}                                     ->  {"samples_ns", "idle", "peak_rss_mb"}

An error that the user can fix is answered with {"error": {"message", "fix"}} and ends the process; any other ends it
with a traceback on stderr. Between two requests it sleeps, so that it does not disturb the other cases.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact, read_artifact
from vit_deploy.errors import VitDeployError
from vit_deploy.golden import golden_pixels, read_golden
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions, Session
from vit_deploy.targets import open_artifact
from vit_deploy.timing import measure, warm_up

# ONNX Runtime's threads spin for some 50 ms after a call (seen in 1.32); a kernel may count their time in 4 ms steps.
IDLE_STEP_S = 0.02
IDLE_LIMIT_S = 1.0
IDLE_SHARE = 0.1  # of a core

Answer = Callable[[Mapping[str, Any]], None]
Opened = tuple[Session, NDArray[Any], dict[str, Any]]
"""A loaded model, the images of a call, and the facts of the first answer."""
OpenCase = Callable[[Mapping[str, Any]], contextlib.AbstractContextManager[Opened]]


def main(open_case: OpenCase | None = None) -> int:
    """Serve requests from stdin until it ends.

    Args:
        open_case: loads what the first request names; None opens bundles. Benchmarks time other files with it.

    Returns:
        The exit status.
    """
    requests, answers = _private_pipes()

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        _serve(requests, answer, open_case or _opened)
    except VitDeployError as error:
        answer({"error": {"message": error.message, "fix": error.fix}})
        return 1
    return 0


def _private_pipes() -> tuple[TextIO, TextIO]:
    """Stdin and stdout for the protocol alone: what an engine prints goes to stderr, and what it reads is empty."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return requests, answers


def _serve(requests: TextIO, answer: Answer, open_case: OpenCase) -> None:
    line = requests.readline()
    if not line:
        return
    with open_case(json.loads(line)) as (session, images, facts):

        def call() -> object:
            return session.infer(images)

        first = measure(call, calls=1, seconds=None)
        answer(facts | {"provider": session.provider, "first_ms": first[0] / 1e6})
        for line in requests:
            request = json.loads(line)
            if "warmup" in request:
                answer(_warmed_up(call, request["warmup"]))
            else:
                answer(_measured(call, **request))


@contextlib.contextmanager
def _opened(case: Mapping[str, Any]) -> Iterator[Opened]:
    path = Path(case["artifact"])
    artifact = read_artifact(path, check_digests=False) if path.is_dir() else open_artifact(path)  # checked before
    golden = golden_images(artifact)
    images = np.ascontiguousarray(golden[np.arange(case["batch"]) % len(golden)])
    engine = RUNTIMES.load(case["runtime"])()
    start = time.perf_counter_ns()
    with engine.open(artifact, RuntimeOptions(threads=case["threads"], provider=case["provider"])) as session:
        load_ms = (time.perf_counter_ns() - start) / 1e6
        yield session, images, {"load_ms": load_ms, "file_batch": artifact.input.batch}


def golden_images(artifact: Artifact) -> NDArray[Any]:
    """The images that travel in a bundle; for a bare checkpoint file those that would."""
    if artifact.format == "keras":
        return artifact.preprocess.normalize(golden_pixels(artifact.config))
    return read_golden(artifact).images


def _warmed_up(call: Callable[[], object], calls: int | None) -> dict[str, Any]:
    samples, flat = warm_up(call) if calls is None else (measure(call, calls=calls, seconds=None), True)
    _sleep_until_idle()
    return {"samples_ns": samples, "flat": flat}


def _measured(call: Callable[[], object], calls: int | None, seconds: float | None) -> dict[str, Any]:
    call()  # the caches held another case's weights
    samples = measure(call, calls=calls, seconds=seconds)
    return {"samples_ns": samples, "idle": _sleep_until_idle(), "peak_rss_mb": peak_rss_mb()}


def _sleep_until_idle() -> bool:
    """Wait for the engine's threads, which spin for a while after a call; whether they all went to sleep."""
    end = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < end:
        begun, used = time.perf_counter(), time.process_time()
        time.sleep(IDLE_STEP_S)
        if time.process_time() - used < IDLE_SHARE * (time.perf_counter() - begun):
            return True
    return False


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


if __name__ == "__main__":
    sys.exit(main())
