"""The few calls of the CUDA driver that an engine of plans needs: devices, memory, streams, events and graphs.

They are those of libcuda, which comes with NVIDIA's driver, so that nothing has to be installed for them. All work in
the primary context of a GPU, which is the one that CUDA's own libraries take as well.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vit_deploy.errors import EngineError
from vit_deploy.gpu_card import CAPABILITY_MAJOR, CAPABILITY_MINOR, TEXT_BYTES, cuda_version, load_driver

NO_MEMORY, NO_DEVICE = 2, 100  # CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NO_DEVICE
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream
OF_THIS_THREAD = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may go on

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuCtxSetCurrent": (c_void_p,),
    "cuMemAlloc_v2": (POINTER(c_void_p), c_size_t),
    "cuMemFree_v2": (c_void_p,),
    "cuMemcpyHtoDAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoDAsync_v2": (c_void_p, c_void_p, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuEventCreate": (POINTER(c_void_p), c_uint),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cuEventDestroy_v2": (c_void_p,),
}


def open_library() -> Any:
    """The driver's library, with the types of its functions.

    Raises:
        EngineError: there is no NVIDIA driver, or it is too old.
    """
    try:
        library = load_driver()
        for name, types in FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = list(types), c_int
    except (OSError, AttributeError) as error:
        raise EngineError(
            f"there is no NVIDIA driver that can be used here: {error}",
            fix="run it on a machine with an NVIDIA GPU and its driver; vit-deploy doctor tells what is there",
        ) from error
    return library


@dataclass(frozen=True)
class Gpu:
    """What a GPU is.

    Args:
        index: among those that this process sees.
        name: of the product.
        compute_capability: as "9.0".
        cuda: the newest CUDA version that the driver speaks, as "13.0".
    """

    index: int
    name: str
    compute_capability: str
    cuda: str

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.compute_capability})"


def find_gpu(index: int = 0) -> Gpu:
    """The GPU of this number.

    Raises:
        EngineError: there is no driver, or no such GPU.
    """
    return _gpu(_initialized(), index)


def _initialized() -> _Cuda:
    cuda = _Cuda(open_library())
    cuda("cuInit", 0)
    return cuda


def _gpu(cuda: _Cuda, index: int) -> Gpu:
    count, handle, version = c_int(), c_int(), c_int()
    cuda("cuDeviceGetCount", byref(count))
    if not 0 <= index < count.value:
        raise EngineError(
            f"there is no GPU {index}: this process sees {count.value or 'none'}",
            fix="give another --device; CUDA_VISIBLE_DEVICES says which GPUs are seen",
        )
    cuda("cuDeviceGet", byref(handle), index)
    name = ctypes.create_string_buffer(TEXT_BYTES)
    cuda("cuDeviceGetName", name, TEXT_BYTES, handle)
    cuda("cuDriverGetVersion", byref(version))
    sides = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        side = c_int()
        cuda("cuDeviceGetAttribute", byref(side), attribute, handle)
        sides.append(side.value)
    return Gpu(index, name.value.decode(errors="replace"), ".".join(map(str, sides)), cuda_version(version.value))


class _Cuda:
    """Calls by name, whose errors are raised."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __call__(self, name: str, *arguments: Any) -> None:
        code = int(getattr(self._library, name)(*arguments))
        if code == 0:
            return
        short, long = c_char_p(), c_char_p()
        self._library.cuGetErrorName(code, byref(short))
        self._library.cuGetErrorString(code, byref(long))
        words = f"{name} failed with {(short.value or b'').decode() or code}: {(long.value or b'').decode()}"
        if code == NO_MEMORY:
            raise EngineError(f"out of GPU memory: {words}", fix="take a smaller batch, or free memory of the GPU")
        if code == NO_DEVICE:
            raise EngineError(
                f"there is no NVIDIA GPU: {words}", fix="check CUDA_VISIBLE_DEVICES, and vit-deploy doctor"
            )
        raise EngineError(words, fix="check the driver and the GPU with nvidia-smi and vit-deploy doctor")


@contextlib.contextmanager
def open_device(index: int = 0) -> Iterator[Device]:
    """A GPU to work on; what was allocated on it is freed when the block ends.

    Raises:
        EngineError: there is no driver, or no such GPU.
    """
    cuda = _initialized()
    gpu = _gpu(cuda, index)
    handle, context, before = c_int(), c_void_p(), c_void_p()
    cuda("cuCtxGetCurrent", byref(before))
    cuda("cuDeviceGet", byref(handle), index)
    cuda("cuDevicePrimaryCtxRetain", byref(context), handle)
    device = Device(cuda, gpu, context)
    try:
        device.use()
        yield device
    finally:
        try:
            device.close()
        finally:
            cuda("cuCtxSetCurrent", before)  # what other libraries in this thread go on with
            cuda("cuDevicePrimaryCtxRelease_v2", handle)


def hold_device(index: int = 0) -> None:
    """Open a GPU's context and leave it open as long as the process lives, so that nobody has to open it anew.

    Raises:
        EngineError: there is no driver, or no such GPU.
    """
    cuda = _initialized()
    _gpu(cuda, index)
    handle, context = c_int(), c_void_p()
    cuda("cuDeviceGet", byref(handle), index)
    cuda("cuDevicePrimaryCtxRetain", byref(context), handle)


class Device:
    """A GPU, by its primary context.

    Attributes:
        gpu: what it is.
    """

    def __init__(self, cuda: _Cuda, gpu: Gpu, context: c_void_p) -> None:
        self.gpu = gpu
        self._cuda = cuda
        self._context = context
        self._buffers: dict[int, Buffer] = {}
        self._streams: list[Stream] = []

    def use(self) -> None:
        """Let this thread work on it, as each thread has to that has not yet."""
        self._cuda("cuCtxSetCurrent", self._context)

    def allocate(self, nbytes: int) -> Buffer:
        """Memory on it.

        Raises:
            EngineError: there is not as much.
        """
        address = c_void_p()
        self._cuda("cuMemAlloc_v2", byref(address), nbytes)
        buffer = Buffer(int(address.value or 0), nbytes)
        self._buffers[buffer.address] = buffer
        return buffer

    def free(self, buffer: Buffer) -> None:
        """Give memory back."""
        del self._buffers[buffer.address]
        self._cuda("cuMemFree_v2", buffer.address)

    def stream(self) -> Stream:
        """A queue of work of its own."""
        handle = c_void_p()
        self._cuda("cuStreamCreate", byref(handle), NON_BLOCKING)
        self._streams.append(Stream(self._cuda, int(handle.value or 0)))
        return self._streams[-1]

    def close(self) -> None:
        """Free all that was made on it."""
        self.use()
        for stream in self._streams:
            stream.close()
        self._streams = []
        for buffer in list(self._buffers.values()):
            self.free(buffer)


@dataclass(frozen=True)
class Buffer:
    """Memory on a GPU."""

    address: int
    nbytes: int


class Stream:
    """Work of a GPU that is done in order.

    Attributes:
        handle: by which CUDA's libraries know it.
    """

    def __init__(self, cuda: _Cuda, handle: int) -> None:
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
        graph: to be launched; None as long as it is being recorded.
    """

    graph: CudaGraph | None = None


class CudaGraph:
    """Recorded work, which is asked for with one call."""

    def __init__(self, cuda: _Cuda, handle: int) -> None:
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

    def __init__(self, cuda: _Cuda, handle: int) -> None:
        self._cuda = cuda
        self._handle = handle

    def record(self, stream: Stream) -> None:
        """Put it behind what the stream was asked for so far."""
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
