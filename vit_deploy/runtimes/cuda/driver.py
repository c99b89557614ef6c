"""The functions of CUDA's driver library that an engine of plans needs, with their types, and its errors in words.

They are those of libcuda, which comes with NVIDIA's driver, so that nothing has to be installed for them.
"""

from __future__ import annotations

from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from typing import Any

from vit_deploy.errors import EngineError
from vit_deploy.runtimes.cuda.card import load_driver

NO_MEMORY, NO_DEVICE = 2, 100  # CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_NO_DEVICE

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


class Cuda:
    """Calls by name, whose errors are raised."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def __call__(self, name: str, *arguments: Any) -> None:
        """Make one.

        Raises:
            EngineError: it failed; in words, by CUDA's own name.
        """
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
