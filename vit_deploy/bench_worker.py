"""What does the process do that times one case? It takes one JSON request a line, and answers each with one.

    {"artifact", "runtime", "provider", "threads", "batch", "streams"}  ->  {"provider", "load_ms", "first_ms", …}
    {"warmup": calls or null}                                           ->  {"samples_ns", "flat"}
    {"calls", "seconds"}                             ->  {"samples_ns", "round_ns", "idle", "peak_rss_mb", …}

The last request of a case has {"last": true} as well and is answered with {"preprocess_ns"} too: what is imported and
computed for that is not counted as the model's memory.
An error that the user can fix is answered with {"error": {"message", "fix"}} and ends the process; any other ends it
with a traceback on stderr. Between two requests it sleeps, so that it does not disturb the other cases.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact, read_artifact
from vit_deploy.energy import EnergyMeter, GpuEnergyMeter
from vit_deploy.errors import DataError, VitDeployError
from vit_deploy.golden import golden_pixels, natural_pixels, read_golden
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES, DeviceSession, RuntimeOptions, Session
from vit_deploy.targets import open_artifact
from vit_deploy.timing import measure, warm_up

# ONNX Runtime's threads spin for some 50 ms after a call (seen in 1.32); a kernel may count their time in 4 ms steps.
IDLE_STEP_S = 0.02
IDLE_LIMIT_S = 1.0
IDLE_SHARE = 0.1  # of a core
PHOTO = (480, 640)  # (height, width) of the file that preprocessing is timed on
PHOTOS = 5
TRANSFERS = 20
GPU_WARMUP_S = 1.0  # in which its clock comes up to speed, and libraries choose their kernels

Answer = Callable[[Mapping[str, Any]], None]
Opened = tuple[Session, NDArray[Any], dict[str, Any]]
"""A loaded model, images of a call, the facts of the first answer, among them a function `preprocess` for the last."""
OpenCase = Callable[[Mapping[str, Any]], contextlib.AbstractContextManager[Opened]]


def main(open_case: OpenCase | None = None) -> int:
    """Serve requests from stdin until it ends.

    Args:
        open_case: loads what the first request names; None opens bundles. Benchmarks time other files with it.

    Returns:
        The exit status.
    """
    requests, answers = private_pipes()

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        _serve(requests, answer, open_case or _opened)
    except VitDeployError as error:
        answer({"error": {"message": error.message, "fix": error.fix}})
        return 1
    return 0


def private_pipes() -> tuple[TextIO, TextIO]:
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
    case = json.loads(line)
    with contextlib.ExitStack() as stack:
        # A model of its own for each stream: an interpreter takes one call at a time.
        opened = [stack.enter_context(open_case(case)) for _ in range(case.get("streams", 1))]
        calls = [_call(session, images) for session, images, _ in opened]
        session, images, facts = opened[0]
        preprocess = facts.pop("preprocess", list)
        first = measure(calls[0], calls=1, seconds=None)
        usual: dict[str, Any] = {"bytes": None, "resting_rss_mb": None, "placement": {}, "first_ms": first[0] / 1e6}
        moved = {"transfer_ns": transfer_samples(session, images)}
        answer(usual | facts | moved | {"provider": session.provider})
        on_gpu = session.provider in GPU_PROVIDERS
        for line in requests:
            request = json.loads(line)
            if "warmup" in request:
                answer(_warmed_up(calls, request["warmup"], GPU_WARMUP_S if on_gpu else 0.0))
            else:
                last = request.pop("last", False)
                measured = _measured(calls, **request, on_gpu=on_gpu)
                answer(measured | ({"preprocess_ns": preprocess()} if last else {}))


def _call(session: Session, images: NDArray[Any]) -> Callable[[], object]:
    if isinstance(session, DeviceSession):  # what it computes and what it copies are timed apart
        session.upload(images)
        return session.compute
    return lambda: session.infer(images)


def transfer_samples(session: Session, images: NDArray[Any]) -> list[int]:
    """Nanoseconds of copying images to a device and the outputs back; none where there is no such device."""
    if not isinstance(session, DeviceSession):
        return []
    device, samples = session, []
    for _ in range(TRANSFERS):
        [up] = measure(lambda: device.upload(images), calls=1, seconds=None)
        device.compute()
        [down] = measure(device.download, calls=1, seconds=None)
        samples.append(up + down)
    return samples


@contextlib.contextmanager
def _opened(case: Mapping[str, Any]) -> Iterator[Opened]:
    path = Path(case["artifact"])
    artifact = read_artifact(path, check_digests=False) if path.is_dir() else open_artifact(path)  # checked before
    golden = golden_images(artifact)
    images = np.ascontiguousarray(golden[np.arange(case["batch"]) % len(golden)])
    engine = RUNTIMES.load(case["runtime"])()
    facts: dict[str, Any] = {
        "file_batch": artifact.input.batch,
        "bytes": artifact.model_bytes,
        "resting_rss_mb": rss_mb(),
        "preprocess": lambda: preprocess_samples(artifact),
    }
    start = time.perf_counter_ns()
    options = RuntimeOptions(
        threads=case["threads"],
        provider=case["provider"],
        device=case.get("device", 0),
        cuda_graph=case.get("cuda_graph", False),
        largest_batch=case["batch"],
    )
    with engine.open(artifact, options) as session:
        load_ns, trial_ns = time.perf_counter_ns() - start, trial(session)
        facts |= {"load_ms": (load_ns - trial_ns) / 1e6, "placement": dict(session.placement)}
        yield session, images, facts | ({"first_ms": trial_ns / 1e6} if trial_ns else {})


def trial(session: Session) -> int:
    """Nanoseconds of the call that a session was opened with; 0 without one."""
    return session.trial_ns if isinstance(session, DeviceSession) else 0


def golden_images(artifact: Artifact) -> NDArray[Any]:
    """The images that travel in a bundle; for a bare checkpoint file those that would."""
    if artifact.format == "keras":
        return artifact.preprocess.normalize(golden_pixels(artifact.config))
    return read_golden(artifact).images


def preprocess_samples(artifact: Artifact) -> list[int]:
    """Nanoseconds of turning a photograph-like JPEG into an input; none without Pillow or for other channels."""
    if importlib.util.find_spec("PIL") is None or artifact.config.channels not in (1, 3):
        return []
    from PIL import Image

    from vit_deploy.images import load_image

    [picture] = natural_pixels(1, *PHOTO, 3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.jpg"
        Image.fromarray(picture).save(path)
        try:
            return measure(
                lambda: load_image(path, artifact.preprocess, artifact.config.image_size), calls=PHOTOS, seconds=None
            )
        except DataError:  # a recorded resize that leads elsewhere: nothing to time
            return []


def _warmed_up(calls: Sequence[Callable[[], object]], count: int | None, least_s: float) -> dict[str, Any]:
    samples, flat = [], True
    for call in calls:
        warmed = warm_up(call, least_s=least_s) if count is None else (measure(call, calls=count, seconds=None), True)
        samples += warmed[0]
        flat = flat and warmed[1]
    _sleep_until_idle()
    return {"samples_ns": samples, "flat": flat}


def _measured(
    each: Sequence[Callable[[], object]], calls: int | None, seconds: float | None, on_gpu: bool
) -> dict[str, Any]:
    for call in each:
        call()  # the caches held another case's weights
    gpu_meter = GpuEnergyMeter() if on_gpu else None
    meter, start = EnergyMeter(), time.perf_counter_ns()
    if len(each) == 1:
        samples = measure(each[0], calls=calls, seconds=seconds)
    else:
        shares = [None if calls is None else calls // len(each) + (i < calls % len(each)) for i in range(len(each))]
        with ThreadPoolExecutor(len(each)) as pool:
            parts = pool.map(lambda call, share: measure(call, calls=share, seconds=seconds), each, shares)
            samples = [sample for part in parts for sample in part]
    round_ns, energy_j = time.perf_counter_ns() - start, meter.joules()
    gpu_energy_j = None if gpu_meter is None else gpu_meter.joules()
    return {
        "samples_ns": samples,
        "round_ns": round_ns,
        "idle": _sleep_until_idle(),
        "peak_rss_mb": peak_rss_mb(),
        "energy_j": energy_j,
        "gpu_energy_j": gpu_energy_j,
    }


def _sleep_until_idle() -> bool:
    """Wait for the engine's threads, which spin for a while after a call; whether they all went to sleep."""
    end = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < end:
        begun, used = time.perf_counter(), time.process_time()
        time.sleep(IDLE_STEP_S)
        if time.process_time() - used < IDLE_SHARE * (time.perf_counter() - begun):
            return True
    return False


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


if __name__ == "__main__":
    sys.exit(main())
