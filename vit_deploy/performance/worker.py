"""The process that times one case: it takes one JSON request a line, and answers each with one.

    {"artifact", "runtime", "provider", "threads", "batch", "streams", …}  ->  {"provider", "load_ms", "first_ms", …}
    {"warmup": calls or null}                                              ->  {"samples_ns", "flat"}
    {"calls", "seconds"}                                ->  {"samples_ns", "round_ns", "processor_s", "idle", …}

The last request of a case has {"last": true} as well and is answered with {"preprocess_ns"} too: what is imported and
computed for that is not counted as the model's memory.
An error that the user can fix is answered with {"error": {"message", "fix", "missing"}} and ends the process, where
"missing" says whether something is to be installed; any other ends it with a traceback on stderr. Between two requests
it sleeps, so that it does not disturb the other cases.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.memory import peak_rss_mb, rss_mb
from vit_deploy.core.stderr import private_pipes
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import DataError, MissingEngineError, VitDeployError
from vit_deploy.performance.energy import EnergyMeter
from vit_deploy.performance.timing import ClockedCall, at_once, measure, warm_up
from vit_deploy.runtimes import (
    GPU_PROVIDERS,
    RUNTIMES,
    ClockedSession,
    DeviceRuntime,
    DeviceSession,
    RuntimeOptions,
    Session,
    is_asked_for_gpu,
    may_choose_gpu,
)
from vit_deploy.verification.golden import read_golden

if TYPE_CHECKING:  # it travels to devices with engines that run on GPUs
    from vit_deploy.performance.gpu_watch import GpuWatch

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
        open_case: loads what the first request names; None opens artifacts. Benchmarks time other files with it.

    Returns:
        The exit status.
    """
    requests, replies = private_pipes()

    def answer(values: Mapping[str, Any]) -> None:
        replies.write(json.dumps(values) + "\n")
        replies.flush()

    try:
        _serve(requests, answer, open_case or _opened)
    except VitDeployError as error:
        missing = isinstance(error, MissingEngineError)
        answer({"error": {"message": error.message, "fix": error.fix, "missing": missing}})
        return 1
    return 0


def _serve(requests: TextIO, answer: Answer, open_case: OpenCase) -> None:
    line = requests.readline()
    if not line:
        return
    case = json.loads(line)
    watch = _watch(case)
    with contextlib.ExitStack() as stack:
        with _watching(watch):
            # A model of its own for each stream: an interpreter takes one call at a time.
            opened = [stack.enter_context(open_case(case)) for _ in range(case.get("streams", 1))]
            calls = [_call(session, images) for session, images, _ in opened]
            # Of each stream: the first call chooses kernels, and may build an engine, which is no part of a warm-up.
            first = [measure(call, calls=1, seconds=None)[0] for call in calls]
            session, images, facts = opened[0]
            moved = {"transfer_ns": transfer_samples(session, images)}
        if session.provider not in GPU_PROVIDERS:  # it might have been
            watch = None
        preprocess = facts.pop("preprocess", list)
        about = {
            "provider": session.provider,
            "notes": [*getattr(session, "notes", ()), *(watch.notes if watch is not None else ())],
            "gpu": None if watch is None else watch.facts,
        }
        usual: dict[str, Any] = {
            **{"bytes": None, "resting_rss_mb": None, "placement": {}, "first_ms": first[0] / 1e6},
            **{"threads": case["threads"], "build_ms": None},
        }
        answer(usual | facts | moved | about)
        on_gpu = session.provider in GPU_PROVIDERS
        devices = [session for session, _, _ in opened if on_gpu and isinstance(session, DeviceSession)]
        for line in requests:
            request = json.loads(line)
            if "warmup" in request:
                with _watching(watch):
                    warmed = _warmed_up(calls, request["warmup"], GPU_WARMUP_S if on_gpu else 0.0)
                answer(warmed)
            else:
                last = request.pop("last", False)
                with _watching(watch):
                    measured = _measured(calls, **request, on_gpu=on_gpu, watch=watch, sessions=devices)
                measured |= {"peak_gpu_mb": None if watch is None else watch.peak_mb}
                answer(measured | ({"preprocess_ns": preprocess()} if last else {}))


def _watch(case: Mapping[str, Any]) -> GpuWatch | None:
    """The GPU that a case is going to run on, or may choose; None on processors."""
    if not _is_for_gpu(case):
        return None
    from vit_deploy.performance.gpu_watch import GpuWatch

    return GpuWatch(case.get("device", 0))


def _is_for_gpu(case: Mapping[str, Any]) -> bool:
    called = (case["runtime"], case.get("provider"))
    if not (is_asked_for_gpu(*called) or may_choose_gpu(*called)):
        return False
    from vit_deploy.performance.gpu_watch import is_for_gpu

    return is_for_gpu(case)


def _watching(watch: GpuWatch | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if watch is None else watch.watched()


def _queued(sessions: Sequence[DeviceSession], samples_ns: Sequence[int]) -> Mapping[str, int | None]:
    """`gpu_watch.queued`; None of sessions on processors, which are none of these."""
    if not sessions:
        return {"queued_calls": None, "queued_ns": None}
    from vit_deploy.performance.gpu_watch import queued

    return queued(sessions, samples_ns)


def _call(session: Session, images: NDArray[Any]) -> Callable[[], object]:
    if isinstance(session, DeviceSession):  # what it computes and what it copies are timed apart
        session.upload(images)
        return session.compute
    if isinstance(session, ClockedSession):
        from vit_deploy.performance.clocked import InAnotherProgram  # programs such as browsers are of no device

        session.upload(images)
        return InAnotherProgram(session)
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
    artifact = artifact_to_time(Path(case["artifact"]), check_digests=False)  # they were checked before
    artifact = artifact.taken_for(case.get("signature"), case.get("image_size"))
    golden = golden_images(artifact)
    images = np.ascontiguousarray(golden[np.arange(case["batch"]) % len(golden)])
    engine = RUNTIMES.load(case["runtime"])()
    threads = case["threads"]
    if threads is None and not _is_for_gpu(case):
        threads = case.get("spare_threads")
    options = RuntimeOptions(
        threads=threads,
        provider=case["provider"],
        device=case.get("device", 0),
        cuda_graph=case.get("cuda_graph", False),
        largest_batch=case["batch"],
        runtime_files=case.get("runtime_files"),
        browser=case.get("browser"),
    )
    if isinstance(engine, DeviceRuntime):
        engine.prepare(options)  # or a device's libraries and context would be taken for the model's
    facts: dict[str, Any] = {
        "file_batch": artifact.input.batch,
        "bytes": artifact.model_bytes,
        "resting_rss_mb": rss_mb(),
        "threads": threads,
        "preprocess": lambda: preprocess_samples(artifact),
    }
    # Not by `open_session`: what is timed is the engine's own work, and options were checked before the case began.
    start = time.perf_counter_ns()
    with engine.open(artifact, options) as session:
        load_ns = time.perf_counter_ns() - start
        trial_ns, build_ns = trial(session)
        facts |= {"load_ms": (load_ns - trial_ns - build_ns) / 1e6, "placement": dict(session.placement)}
        facts |= {"build_ms": build_ns / 1e6} if build_ns else {}
        if isinstance(session, ClockedSession):
            from vit_deploy.performance.clocked import refuse_unfit

            refuse_unfit(artifact, session)
            facts |= {"load_ms": session.load_ns / 1e6, "resting_rss_mb": session.resting_mb}
            facts |= {"engine": dict(session.engine)}
        yield session, images, facts | ({"first_ms": trial_ns / 1e6} if trial_ns else {})


def artifact_to_time(path: Path, *, check_digests: bool = True) -> Artifact:
    """The artifact in a folder, or a checkpoint or a model file of anybody as one; see `targets.open_to_time`.

    Args:
        path: of the folder or the file.
        check_digests: whether the files of an artifact are compared with their digests.

    Raises:
        ArtifactError, CheckpointError, ConfigError: as `targets.open_to_time`.
    """
    if (path / MANIFEST).is_file():
        return read_artifact(path, check_digests=check_digests)
    from vit_deploy.verification.targets import open_to_time  # a device, where all are artifacts, does without

    return open_to_time(path)


def trial(session: Session) -> tuple[int, int]:
    """Nanoseconds of the call that a session was opened with, and of building its engine; 0 without one."""
    return (session.trial_ns, session.build_ns) if isinstance(session, DeviceSession) else (0, 0)


def golden_images(artifact: Artifact) -> NDArray[Any]:
    """The images that travel in an artifact; for a bare checkpoint or model file those that would."""
    if artifact.is_checkpoint or artifact.is_bare:
        from vit_deploy.verification.recording import golden_pixels

        pixels = golden_pixels(artifact.config)
        return pixels if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels)
    golden = read_golden(artifact, inside=False)
    if golden.images.shape[1:3] == artifact.config.image_size:
        return golden.images
    pixels = natural_pixels(len(golden.images), *artifact.config.image_size, artifact.config.channels)
    return pixels if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels)


def preprocess_samples(artifact: Artifact) -> list[int]:
    """Nanoseconds of turning a photograph-like JPEG into an input; none without Pillow, or where none is known."""
    if importlib.util.find_spec("PIL") is None or artifact.config.channels not in (1, 3) or artifact.is_bare:
        return []
    from PIL import Image

    from vit_deploy.core.images import load_image

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
    if count is None:
        samples, flat = warm_up(*calls, least_s=least_s)
    else:
        parts = at_once(calls, lambda call: measure(call, calls=count, seconds=None))
        samples, flat = [sample for part in parts for sample in part], True
    _sleep_until_idle(calls)
    return {"samples_ns": samples, "flat": flat}


def _measured(
    streams: Sequence[Callable[[], object]],
    calls: int | None,
    seconds: float | None,
    on_gpu: bool,
    watch: GpuWatch | None = None,
    sessions: Sequence[DeviceSession] = (),
) -> dict[str, Any]:
    """One round: figures of the machine are read outside of what they are of."""
    if on_gpu:
        from vit_deploy.performance.gpu_watch import rewarm

        rewarm(streams)
    else:
        for call in streams:
            call()  # the caches held another case's weights
    states = [watch.state()] if watch is not None else []
    gpu_meter = watch.energy() if watch is not None else None
    used_s, meter, start = _processor_s(streams), EnergyMeter(), time.perf_counter_ns()
    counts = [
        None if calls is None else calls // len(streams) + (i < calls % len(streams)) for i in range(len(streams))
    ]
    parts = at_once(
        list(zip(streams, counts, strict=True)), lambda part: measure(part[0], calls=part[1], seconds=seconds)
    )
    round_ns, energy_j = time.perf_counter_ns() - start, meter.joules()
    gpu_energy_j = None if gpu_meter is None else gpu_meter.joules()
    used_s = _processor_s(streams) - used_s
    states += [watch.state()] if watch is not None else []
    samples = [sample for part in parts for sample in part]
    return {
        "samples_ns": samples,
        "round_ns": round_ns,
        "processor_s": used_s,
        **_queued(sessions, samples),
        "idle": _sleep_until_idle(streams),
        "peak_rss_mb": _peak_mb(streams),
        "energy_j": energy_j,
        "gpu_energy_j": gpu_energy_j,
        "gpu_states": states,
    }


def _peak_mb(calls: Sequence[Callable[[], object]]) -> float | None:
    if not _are_elsewhere(calls):
        return peak_rss_mb()
    from vit_deploy.performance.clocked import peak_mb

    return peak_mb(calls)


def _processor_s(calls: Sequence[Callable[[], object]]) -> float:
    if not _are_elsewhere(calls):
        return time.process_time()
    from vit_deploy.performance.clocked import processor_s_elsewhere

    return time.process_time() + processor_s_elsewhere(calls)


def _are_elsewhere(calls: Sequence[Callable[[], object]]) -> bool:
    """Whether some are made in another program."""
    return any(isinstance(call, ClockedCall) for call in calls)


def _sleep_until_idle(calls: Sequence[Callable[[], object]]) -> bool:
    """Wait for the engine's threads, which spin for a while after a call; whether they all went to sleep."""
    end = time.perf_counter() + IDLE_LIMIT_S
    while time.perf_counter() < end:
        begun, used = time.perf_counter(), _processor_s(calls)
        time.sleep(IDLE_STEP_S)
        if _processor_s(calls) - used < IDLE_SHARE * (time.perf_counter() - begun):
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
