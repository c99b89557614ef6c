"""Times of OpenVINO's operators on the CPU, by its own counters."""

from __future__ import annotations

from typing import Any

import openvino
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.openvino import DEVICE, explained, settings
from vit_deploy.runtimes.values import as_stored, checked_images

EXECUTED = openvino.ProfilingInfo.Status.EXECUTED


class OpenVINOProfiler:
    """OpenVINO's performance counters, which a compiled model keeps for its last call."""

    def times(
        self, artifact: Artifact, images: NDArray[Any], *, threads: int | None, warmup: int, calls: int
    ) -> list[list[tuple[str, float]]]:
        """Type and milliseconds of each operator that ran, for each call; see `profilers.Profiler`."""
        refuse_outside_data(artifact.model_path)
        images = checked_images(images, artifact)
        chosen = settings(RuntimeOptions(threads=threads), "cpu") | {"PERF_COUNT": True}
        with explained(f"profile {artifact.model_path}"):
            model = openvino.Core().compile_model(engine_path(artifact.model_path), DEVICE, chosen)
            request = model.create_infer_request()
            times = [_one_call(request, images, artifact) for _ in range(warmup + calls)]
        # Whatever takes less than a microsecond in a call is not counted as executed in it.
        ran = {node.node_name for nodes in times for node in nodes if node.status == EXECUTED}
        kept = [[node for node in nodes if node.node_name in ran] for nodes in times[warmup:]]
        return [[(node.node_type, node.real_time.total_seconds() * 1e3) for node in nodes] for nodes in kept]


def _one_call(request: Any, images: NDArray[Any], artifact: Artifact) -> list[Any]:
    spec = artifact.input
    found: list[Any] = []

    def run(part: NDArray[Any]) -> NDArray[Any]:
        output: NDArray[Any] = request.infer({spec.name: as_stored(part, spec)})[0]
        found.extend(request.get_profiling_info())
        return output

    in_batches(run, images, spec.batch)
    return found
