"""A CUDA driver without a GPU: memory is bytes, and streams work when they are waited for, as late as they may."""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections import defaultdict


def value(argument):
    """Of a number, or of one of ctypes' own."""
    return getattr(argument, "value", argument) or 0


class FakeCuda:
    """The functions of libcuda that are called, by their names.

    Args:
        gpus: name and compute capability of each.
        memory: bytes that each has.
    """

    def __init__(self, gpus=(("NVIDIA Test 9000", (9, 0)),), memory=1 << 28):
        self.gpus, self.memory = gpus, memory
        self.failing: dict[str, int] = {}
        self.called: list[str] = []
        self.allocated: dict[int, bytearray] = {}
        self.queues: dict[int, list] = defaultdict(list)
        self.captures: dict[int, list] = {}
        self.graphs: dict[int, list] = {}
        self.retained = 0
        self.thread = threading.local()  # each works on what it chose itself
        self.events: dict[int, float] = {}
        self._numbers = itertools.count(0x10000, 0x1000)

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if not name.startswith("cu") or not callable(found):
            return found
        self.called.append(name)
        code = self.failing.get(name, 0)
        return (lambda *arguments: code) if code else (lambda *arguments: found(*arguments) or 0)

    @property
    def current(self):
        return getattr(self.thread, "current", 0)

    def enqueue(self, stream, work):
        """Do it when the stream is waited for, or record it."""
        assert self.current
        handle = value(stream)
        self.captures.get(handle, self.queues[handle]).append(work)

    def read(self, address, size):
        return bytes(self.allocated[address][:size])

    def write(self, address, content):
        assert len(content) <= len(self.allocated[address])
        self.allocated[address][: len(content)] = content

    def cuInit(self, flags):
        return 0 if self.gpus else 100

    def cuDriverGetVersion(self, version):
        version._obj.value = 13000

    def cuGetErrorName(self, code, text):
        text._obj.value = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 100: b"CUDA_ERROR_NO_DEVICE"}.get(code, b"CUDA_ERROR_OTHER")

    def cuGetErrorString(self, code, text):
        text._obj.value = {2: b"out of memory", 100: b"no CUDA-capable device is detected"}.get(code, b"as asked")

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def cuDeviceGet(self, device, index):
        device._obj.value = index

    def cuDeviceGetName(self, text, size, device):
        text.value = self.gpus[value(device)][0].encode()

    def cuDeviceGetAttribute(self, found, attribute, device):
        found._obj.value = self.gpus[value(device)][1][attribute - 75]

    def cuDevicePrimaryCtxRetain(self, context, device):
        context._obj.value = 7 + value(device)
        self.retained += 1

    def cuDevicePrimaryCtxRelease_v2(self, device):
        self.retained -= 1
        assert self.retained or not self.allocated

    def cuCtxGetCurrent(self, context):
        context._obj.value = self.current

    def cuCtxSetCurrent(self, context):
        self.thread.current = value(context)

    def cuMemAlloc_v2(self, address, size):
        if size + sum(map(len, self.allocated.values())) > self.memory:
            return 2
        address._obj.value = next(self._numbers) + size
        self.allocated[address._obj.value] = bytearray(size)
        return 0

    def cuMemFree_v2(self, address):
        del self.allocated[value(address)]

    def cuMemcpyHtoDAsync_v2(self, target, source, size, stream):
        self.enqueue(stream, lambda: self.write(target, ctypes.string_at(source, size)))

    def cuMemcpyDtoHAsync_v2(self, target, source, size, stream):
        self.enqueue(stream, lambda: ctypes.memmove(target, self.read(source, size), size))

    def cuMemcpyDtoDAsync_v2(self, target, source, size, stream):
        self.enqueue(stream, lambda: self.write(target, self.read(source, size)))

    def cuStreamCreate(self, stream, flags):
        stream._obj.value = next(self._numbers)

    def cuStreamDestroy_v2(self, stream):
        self.queues.pop(value(stream), None)

    def cuStreamSynchronize(self, stream):
        handle = value(stream)
        if handle in self.captures:
            return 900
        while self.queues[handle]:
            self.queues[handle].pop(0)()
        return 0

    def cuStreamBeginCapture_v2(self, stream, mode):
        assert not self.queues[value(stream)]
        self.captures[value(stream)] = []

    def cuStreamEndCapture(self, stream, graph):
        graph._obj.value = next(self._numbers)
        self.graphs[graph._obj.value] = self.captures.pop(value(stream))

    def cuGraphInstantiateWithFlags(self, executable, graph, flags):
        executable._obj.value = next(self._numbers)
        self.graphs[executable._obj.value] = self.graphs[value(graph)]

    def cuGraphLaunch(self, graph, stream):
        for work in self.graphs[value(graph)]:
            self.enqueue(stream, work)

    def cuGraphExecDestroy(self, graph):
        del self.graphs[value(graph)]

    def cuGraphDestroy(self, graph):
        del self.graphs[value(graph)]

    def cuEventCreate(self, event, flags):
        event._obj.value = next(self._numbers)

    def cuEventRecord(self, event, stream):
        self.enqueue(stream, lambda: self.events.__setitem__(value(event), float(next(self._numbers))))

    def cuEventSynchronize(self, event):
        for queue in list(self.queues):
            self.cuStreamSynchronize(queue)

    def cuEventElapsedTime(self, elapsed, earlier, later):
        elapsed._obj.value = self.events[value(later)] - self.events[value(earlier)]

    def cuEventDestroy_v2(self, event):
        self.events.pop(value(event), None)
