"""An ONNX Runtime that says it has CUDA and TensorRT; what it is asked of a GPU it does on the CPU, and remembers."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import ClassVar

import onnxruntime

from vit_deploy.runtimes.ort import gpus

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


def install(monkeypatch):
    """Put it in the place of ONNX Runtime; returns its class of sessions.

    `operators` are what it says that each provider took, `options` what its last session was made with, `events` what
    was done since, in order: ("value", device), ("input", …), ("run", {run options}), ("wait",), ("copy", …).
    """

    class Events(list):
        def append(self, event):
            Pretending.disturbed += Pretending.recording is not None
            super().append(event)

    events = Events()

    class Binding:
        def __init__(self, real):
            self._real = real

        def synchronize_inputs(self):
            events.append(("wait for inputs",))

        def synchronize_outputs(self):
            events.append(("wait",))

        def bind_output(self, name, memory, device):
            events.append(("output", device))
            self._real.bind_output(name, memory, 0)

        def __getattr__(self, name):
            return getattr(self._real, name)

    class Pretending(onnxruntime.InferenceSession):
        operators: ClassVar = {CUDA: 2}
        options: ClassVar = {}
        others: ClassVar = {}
        recording = None  # the session that records a graph at the moment
        disturbed = 0  # times that another one did something meanwhile

        def __init__(self, path, settings, providers, **others):
            self.asked = providers
            self.graphs = threading.local()
            Pretending.options, Pretending.others = dict(providers), others
            super().__init__(path, settings, providers=[CPU])

        def get_providers(self):
            return [name for name, _ in self.asked] + [CPU]

        def get_provider_graph_assignment_info(self):
            return [
                SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
                for name, count in self.operators.items()
            ]

        def io_binding(self):
            return Binding(super().io_binding())

        def run_with_iobinding(self, binding, options=None):
            keys = ("disable_synchronize_execution_providers", "gpu_graph_id")
            given = (
                {} if options is None else {key: options.get_run_config_entry(key) for key in keys if has(options, key)}
            )
            events.append(("run", given))
            super().run_with_iobinding(self._replayed(binding, given)._real, options)

        def _replayed(self, binding, given):
            """What a graph of this thread was recorded with, whatever is given now; recorded if there is none."""
            graph = given.get("gpu_graph_id")
            if graph is None:
                return binding
            if graph not in self.graphs.__dict__:
                Pretending.recording = self
                time.sleep(0.02)
                Pretending.recording = None
                setattr(self.graphs, graph, binding)
            return getattr(self.graphs, graph)

    class Value(onnxruntime.OrtValue):
        @classmethod
        def ortvalue_from_numpy(cls, array, memory, device):
            events.append(("value", device))
            return onnxruntime_value.ortvalue_from_numpy(array.copy(), memory, 0)  # which the CPU would share

        @classmethod
        def ortvalue_from_shape_and_type(cls, shape, dtype, memory, device):
            events.append(("value", device))
            return onnxruntime_value.ortvalue_from_shape_and_type(shape, dtype, memory, 0)

    onnxruntime_value = onnxruntime.OrtValue
    Pretending.events = events
    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretending)
    monkeypatch.setattr(onnxruntime, "OrtValue", Value)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **where: None)
    monkeypatch.setattr(gpus, "MEMORY", {"cuda": "cpu", "tensorrt": "cpu"})
    return Pretending


def has(options, key):
    """Whether a run option was given; ONNX Runtime raises for one that was not."""
    try:
        options.get_run_config_entry(key)
    except RuntimeError:
        return False
    return True
