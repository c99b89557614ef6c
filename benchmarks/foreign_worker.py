"""What does the process do that times a file of another tool? The same as for an artifact of ours, in the same words.

The request names the `file`, its `runtime`, `threads`, and the `shape` of its input; engines are used plainly.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.performance.worker import Opened, main


class OnnxFile:
    """An ONNX file in ONNX Runtime."""

    provider = "cpu"

    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, classes)`."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: images})[0]
        return output


class LiteRTFile:
    """A TFLite file in LiteRT."""

    provider = "cpu"

    def __init__(self, path: str, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, classes)`."""
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        output: NDArray[np.float32] = self._interpreter.get_tensor(self._output)
        return output


class OpenVINOFile:
    """An ONNX file in OpenVINO, in float32."""

    provider = "cpu"

    def __init__(self, path: str, threads: int) -> None:
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        self._request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, classes)`."""
        return np.array(self._request.infer([images], share_inputs=True)[0], np.float32)


ENGINES: Mapping[str, type[OnnxFile] | type[LiteRTFile] | type[OpenVINOFile]] = {
    "onnxruntime": OnnxFile,
    "litert": LiteRTFile,
    "openvino": OpenVINOFile,
}
MODULES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert.interpreter", "openvino": "openvino"}


@contextlib.contextmanager
def opened(request: Mapping[str, Any]) -> Iterator[Opened]:
    """The session, its images, and what is known once it is loaded."""
    engine = ENGINES[request["runtime"]]
    images = np.random.default_rng(0).standard_normal(request["shape"]).astype(np.float32)
    importlib.import_module(MODULES[request["runtime"]])  # its time is no part of loading a file
    start = time.perf_counter_ns()
    session = engine(request["file"], request["threads"])
    load_ms = (time.perf_counter_ns() - start) / 1e6
    finite = bool(np.isfinite(session.infer(images)).all())
    yield session, images, {"load_ms": load_ms, "file_batch": None, "finite": finite}


if __name__ == "__main__":
    sys.exit(main(opened))
