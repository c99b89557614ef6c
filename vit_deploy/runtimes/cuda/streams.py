"""Work that a GPU does in order: copies, graphs of recorded work, and points to tell time by."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ctypes import byref, c_float, c_void_p
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vit_deploy.errors import EngineError
from vit_deploy.runtimes.cuda.driver import Cuda

OF_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on


@dataclass(frozen=True)
class Buffer:
    """Memory on a GPU."""

    address: int
    nbytes: int


class Stream:
    """Work of a GPU that is done in order.

    Attributes:
        handle: the number by which CUDA's libraries know it.
    """

    def __init__(self, cuda: Cuda, handle: int) -> None:
        self.handle = handle
        self._cuda = cuda

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy a contiguous array, which has to stay until the stream was waited for."""
        assert array.flags.c_contiguous and array.nbytes <= buffer.nbytes
        self._cuda("cuMemcpyHtoDAsync_v2", buffer.address, array.ctypes.data, array.nbytes, self.handle)

    def download(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy into a contiguous array, whose values are there when the stream was waited for."""
        assert array.flags.c_contiguous and array.nbytes <= buffer.nbytes
        self._cuda("cuMemcpyDtoHAsync_v2", array.ctypes.data, buffer.address, array.nbytes, self.handle)

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy on the GPU."""
        assert source.nbytes <= target.nbytes
        self._cuda("cuMemcpyDtoDAsync_v2", target.address, source.address, source.nbytes, self.handle)

    def wait(self) -> None:
        """Return when all its work is done."""
        self._cuda("cuStreamSynchronize", self.handle)

    @contextlib.contextmanager
    def capturing(self) -> Iterator[Capture]:
        """Record what is asked of the stream meanwhile, instead of doing it.

        Gives an object whose `graph` is there once the block has ended well.
        """
        capture, graph = Capture(), c_void_p()
        self._cuda("cuStreamBeginCapture_v2", self.handle, OF_THIS_THREAD)
        try:
            yield capture
        except BaseException:
            with contextlib.suppress(EngineError):  # the first error is the one to tell
                self._cuda("cuStreamEndCapture", self.handle, byref(graph))
                if graph.value:
                    self._cuda("cuGraphDestroy", graph)
            raise
        self._cuda("cuStreamEndCapture", self.handle, byref(graph))
        executable = c_void_p()
        try:
            self._cuda("cuGraphInstantiateWithFlags", byref(executable), graph, 0)
        finally:
            self._cuda("cuGraphDestroy", graph)
        capture.graph = CudaGraph(self._cuda, int(executable.value or 0))

    def event(self) -> Event:
        """A point in its work, to tell time by."""
        handle = c_void_p()
        self._cuda("cuEventCreate", byref(handle), 0)
        event = Event(self._cuda, int(handle.value or 0))
        event.record(self)
        return event

    def close(self) -> None:
        """Give it back; what it was asked to do is still done."""
        self._cuda("cuStreamDestroy_v2", self.handle)


class Capture:
    """What a stream recorded.

    Attributes:
        graph: the graph to launch; None as long as it is being recorded.
    """

    graph: CudaGraph | None = None


class CudaGraph:
    """Recorded work, which one call starts."""

    def __init__(self, cuda: Cuda, handle: int) -> None:
        self._cuda = cuda
        self._handle = handle

    def launch(self, stream: Stream) -> None:
        """Do it in this stream."""
        self._cuda("cuGraphLaunch", self._handle, stream.handle)

    def close(self) -> None:
        """Give it back."""
        self._cuda("cuGraphExecDestroy", self._handle)


class Event:
    """A point in the work of a stream."""

    def __init__(self, cuda: Cuda, handle: int) -> None:
        self._cuda = cuda
        self._handle = handle

    def record(self, stream: Stream) -> None:
        """Put it behind the work that the stream has already."""
        self._cuda("cuEventRecord", self._handle, stream.handle)

    def ms_since(self, earlier: Event) -> float:
        """Milliseconds between the two; waits for this one."""
        elapsed = c_float()
        self._cuda("cuEventSynchronize", self._handle)
        self._cuda("cuEventElapsedTime", byref(elapsed), earlier._handle, self._handle)
        return elapsed.value

    def close(self) -> None:
        """Give it back."""
        self._cuda("cuEventDestroy_v2", self._handle)
