"""GPUs by CUDA's driver: what they are, and memory and streams on them.

All work is in the primary context of a GPU, which is the one that CUDA's own libraries take as well.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from ctypes import byref, c_int, c_void_p
from dataclasses import dataclass

from vit_deploy.errors import EngineError
from vit_deploy.runtimes.cuda.card import CAPABILITY_MAJOR, CAPABILITY_MINOR, TEXT_BYTES, cuda_version
from vit_deploy.runtimes.cuda.driver import Cuda, open_library
from vit_deploy.runtimes.cuda.streams import Buffer, Stream

NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream


@dataclass(frozen=True)
class Gpu:
    """What a GPU is.

    Args:
        index: among those that this process sees.
        name: the name of the product.
        compute_capability: the compute capability, as "9.0".
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


def _initialized() -> Cuda:
    cuda = Cuda(open_library())
    cuda("cuInit", 0)
    return cuda


def _gpu(cuda: Cuda, index: int) -> Gpu:
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
    """Open a GPU's context and leave it open as long as the process lives, so that nobody has to open it again.

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

    def __init__(self, cuda: Cuda, gpu: Gpu, context: c_void_p) -> None:
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
