"""Times of ONNX Runtime's operators on the CPU, by its own profiler."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.ort.errors import explained
from vit_deploy.runtimes.ort.reasons import Setting
from vit_deploy.runtimes.ort.sessions import FATAL, PROVIDERS
from vit_deploy.runtimes.values import as_stored, checked_images

KERNEL = "_kernel_time"  # how the names of those events end that cover the computation itself


class OnnxRuntimeProfiler:
    """ONNX Runtime's profiler, which writes one file of events for a session."""

    def times(
        self, artifact: Artifact, images: NDArray[Any], *, threads: int | None, warmup: int, calls: int
    ) -> list[list[tuple[str, float]]]:
        """Type and milliseconds of each operator that ran, for each call; see `profilers.Profiler`."""
        refuse_outside_data(artifact.model_path)
        images = checked_images(images, artifact)
        with tempfile.TemporaryDirectory() as folder:
            settings = ort.SessionOptions()
            settings.log_severity_level = FATAL
            settings.enable_profiling = True
            settings.profile_file_prefix = str(Path(folder) / "events")
            if threads is not None:
                settings.intra_op_num_threads = threads
            fix = "export the model again, or leave --profile out"
            with explained(f"profile {artifact.model_path}", Setting("cpu"), fix=fix):
                session = ort.InferenceSession(engine_path(artifact.model_path), settings, providers=[PROVIDERS["cpu"]])
                for _ in range(warmup + calls):
                    in_batches(_runner(session, artifact), images, artifact.input.batch)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        runs = operators_of_runs(events)
        per_call, rest = divmod(len(runs), warmup + calls)  # a file for a fixed batch runs several times a call
        if rest or not per_call:
            raise EngineError(
                f"ONNX Runtime's profile of {artifact.model_path} has {len(runs)} runs of {warmup + calls} calls",
                fix="profile a smaller batch: its file holds a million events",
            )
        joined = [list(itertools.chain(*runs[start : start + per_call])) for start in range(0, len(runs), per_call)]
        return joined[warmup:]


def _runner(session: ort.InferenceSession, artifact: Artifact) -> Callable[[NDArray[Any]], NDArray[Any]]:
    spec, output = artifact.input, artifact.output_name

    def run(images: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run([output], {spec.name: as_stored(images, spec)})[0])

    return run


def operators_of_runs(events: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, float]]]:
    """Type and milliseconds of each operator, for each run of the model, in the order of time.

    Args:
        events: the events of ONNX Runtime's profile, with times in microseconds.
    """
    spans = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("name") == "model_run")
    runs: list[list[tuple[str, float]]] = [[] for _ in spans]
    starts = [start for start, _ in spans]
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(KERNEL):
            continue
        number = int(np.searchsorted(starts, event["ts"], side="right")) - 1
        if number >= 0 and event["ts"] <= spans[number][1]:
            runs[number].append((event["args"]["op_name"], event["dur"] / 1e3))
    return runs
