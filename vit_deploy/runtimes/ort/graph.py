"""A session of ONNX Runtime that records the kernels of a call as a CUDA graph, and replays them.

What is recorded reads and writes the same places on the device each time, so images are copied into theirs, and each
shape of a call has places and a graph of its own. ONNX Runtime records in the first call of each thread, as it keeps
graphs by thread (`CUDAExecutionProvider::PerThreadContext`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes.ort.device_sessions import DO_NOT_WAIT, OnnxDeviceSession, Place, run_options
from vit_deploy.runtimes.ort.recording import RECORDING

GRAPH_ID = "gpu_graph_id"  # a run option
TYPES: dict[str, type[np.generic]] = {"float": np.float32, "float16": np.float16, "double": np.float64}
# TensorRT's provider knows one graph, whatever the run option says, and replays it for other shapes as well.
SINGLE = ("tensorrt",)


class Recorded(threading.local):
    """The places whose graphs the present thread has recorded."""

    def __init__(self) -> None:
        self.places: set[int] = set()


class OnnxGraphSession(OnnxDeviceSession):
    """One loaded ONNX file whose calls replay what the first of their shape recorded."""

    def __init__(
        self, engine: Any, artifact: Artifact, provider: str, device: int, memory: str, most: int | None = None
    ) -> None:
        super().__init__(engine, artifact, provider, device, memory, most)
        self._kept: dict[tuple[int, tuple[int, ...]], Place] = {}  # by place in the call and shape
        self._recorded = Recorded()

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Refused; see `runtimes.NamedSession`."""
        raise EngineError(
            f"a CUDA graph is recorded for {self._artifact.output_name} alone, and there are more outputs",
            fix="leave --cuda-graph out",
        )

    def _forget(self) -> None:
        self._kept = {}
        super()._forget()

    def _put(self, stored: Sequence[NDArray[Any]]) -> None:
        keys = [(number, part.shape) for number, part in enumerate(stored)]
        if self.provider in SINGLE and len({*self._kept, *keys}) > 1:
            first = next(iter({**self._kept, **dict.fromkeys(keys)}))[1][0]
            raise EngineError(
                f"TensorRT's provider records one CUDA graph a session, here of {first} images; "
                f"these are {sum(map(len, stored))}",
                fix="open a session for each size of batch, or leave --cuda-graph out",
            )
        for key, part in zip(keys, stored, strict=True):
            if key in self._kept:
                self._kept[key].images.update_inplace(part)
            else:
                self._kept[key] = self._placed(part)
        self._places = [self._kept[key] for key in keys]

    def _placed(self, stored: NDArray[Any]) -> Place:
        name, graph = self._artifact.output_name, str(len(self._kept) + 1)
        binding, images = self._engine.io_binding(), self._on_device(stored)
        binding.bind_ortvalue_input(self._artifact.input.name, images)
        shape, dtype = self._output(len(stored))
        outputs = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._memory, self._device)
        binding.bind_ortvalue_output(name, outputs)
        usual, asking = run_options(**{GRAPH_ID: graph}), run_options(**{GRAPH_ID: graph, DO_NOT_WAIT: "1"})
        return Place(binding, images, stored.shape, usual, asking)

    def _output(self, batch: int) -> tuple[list[int], type[np.generic]]:
        """Shape and type of the outputs of a batch."""
        name = self._artifact.output_name
        [found] = [output for output in self._engine.get_outputs() if output.name == name]
        inner = found.shape[1:]
        dtype = re.fullmatch(r"tensor\((\w+)\)", found.type)
        if dtype is None or dtype[1] not in TYPES or not all(isinstance(side, int) for side in inner):
            raise EngineError(
                f"a CUDA graph writes outputs of a known size and type; {name} is {found.type} {found.shape}",
                fix="leave --cuda-graph out",
            )
        return [batch, *inner], TYPES[dtype[1]]

    def _call(self, place: Place, options: Any) -> None:
        if id(place) in self._recorded.places:
            super()._call(place, options)
        else:
            # In this one call it runs, to allocate what it needs, then records and replays.
            with RECORDING.alone():
                self._engine.run_with_iobinding(place.binding, place.options)
            self._recorded.places.add(id(place))
