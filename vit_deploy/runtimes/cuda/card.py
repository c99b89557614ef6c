"""The NVIDIA GPU that this process computes on, found by CUDA's driver and watched by NVML."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from vit_deploy.core.gpu import Gpu, GpuState, reasons_in

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
PACKAGE = "nvidia-ml-py"
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
SM_CLOCK, CORE_TEMPERATURE = 1, 0  # of nvmlClockType_t and nvmlTemperatureSensors_t
COMPUTE_MODES = {0: "default", 1: "exclusive thread", 2: "prohibited", 3: "exclusive process"}
TEXT_BYTES = 256

T = TypeVar("T")


@dataclass(frozen=True)
class CudaDevice:
    """A GPU as CUDA numbers it for this process.

    Args:
        name: the name of the card, or of the MIG slice.
        bus_id: the PCI bus address of the card, by which NVML finds it too.
        cuda: the newest version of CUDA that the driver speaks.
        compute_capability: the compute capability, as "9.0".
        memory_mb: the memory in 10^6 bytes.
    """

    name: str
    bus_id: str
    cuda: str
    compute_capability: str
    memory_mb: float


def load_driver() -> Any:
    """CUDA's driver library.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(LIBRARY)


def count_devices(load: Callable[[], Any] = load_driver) -> int:
    """How many GPUs this process sees.

    Args:
        load: gives the driver library, or raises OSError.
    """
    count = ctypes.c_int(0)
    try:
        driver = load()
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0


def cuda_device(index: int, load: Callable[[], Any] = load_driver) -> CudaDevice | None:
    """One of the GPUs that this process sees, in CUDA's order; None where there is none.

    NVML knows neither `CUDA_VISIBLE_DEVICES` nor `CUDA_DEVICE_ORDER`, so its own numbers mean other cards.

    Args:
        index: among those that are visible, from 0.
        load: gives the driver library, or raises OSError.
    """
    try:
        driver = load()
    except OSError:
        return None
    device, version, memory = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    name, bus_id = ctypes.create_string_buffer(TEXT_BYTES), ctypes.create_string_buffer(TEXT_BYTES)
    questions: list[Callable[[], int]] = [
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(device), index),
        lambda: driver.cuDriverGetVersion(ctypes.byref(version)),
        lambda: driver.cuDeviceGetName(name, TEXT_BYTES, device),
        lambda: driver.cuDeviceGetPCIBusId(bus_id, TEXT_BYTES, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device),
        lambda: driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device),
    ]
    if any(ask() != 0 for ask in questions):  # the first that fails ends it
        return None
    return CudaDevice(
        name=name.value.decode(errors="replace"),
        bus_id=bus_id.value.decode(errors="replace"),
        cuda=cuda_version(version.value),
        compute_capability=f"{major.value}.{minor.value}",
        memory_mb=memory.value / 1e6,
    )


def cuda_version(number: int) -> str:
    """A version of CUDA as people write it: "13.0" for 13000."""
    return f"{number // 1000}.{number % 1000 // 10}"


class Card:
    """One GPU; NVML stays open for as long as the process lives, since opening it takes longer than a call.

    Args:
        device: the device as CUDA sees it.
        nvml: the module of nvidia-ml-py; None where it is not installed, or no driver answers.
        handle: the handle of the card there.
        why_not: what is missing where there is no `nvml`, for people.
    """

    def __init__(self, device: CudaDevice, nvml: Any, handle: Any, why_not: str | None = None) -> None:
        self._device, self._nvml, self._handle, self._why_not = device, nvml, handle, why_not

    @property
    def facts(self) -> Gpu:
        """What does not change while it runs."""
        found, nvml = self._device, self._nvml
        limit = self._told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle))
        mig = self._told(lambda: nvml.nvmlDeviceGetMigMode(self._handle)[0])
        mode = self._told(lambda: nvml.nvmlDeviceGetComputeMode(self._handle))
        return Gpu(
            name=found.name,
            uuid=self._told(lambda: _text(nvml.nvmlDeviceGetUUID(self._handle))),
            driver=self._told(lambda: _text(nvml.nvmlSystemGetDriverVersion())),
            cuda=found.cuda,
            compute_capability=found.compute_capability,
            memory_mb=found.memory_mb,
            # A card that cannot be divided does not know the question.
            mig=None if nvml is None else bool(mig),
            compute_mode=None if mode is None else COMPUTE_MODES.get(int(mode), str(mode)),
            power_limit_w=None if limit is None else int(limit) / 1e3,
        )

    @property
    def notes(self) -> list[str]:
        """What one has to know to read these facts."""
        if self._why_not is not None:
            return [f"clock, power limit, memory and energy of the GPU are not told: {self._why_not}"]
        if self.facts.mig:
            return ["clock, power limit and energy are those of the whole GPU, of which it had a MIG slice"]
        return []

    def state(self) -> GpuState:
        """How it is doing now."""
        nvml = self._nvml
        # Older versions of the package have it by its older name alone.
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        bits = self._told(lambda: reasons(self._handle)) if reasons is not None else None
        clock = self._told(lambda: nvml.nvmlDeviceGetClockInfo(self._handle, SM_CLOCK))
        degrees = self._told(lambda: nvml.nvmlDeviceGetTemperature(self._handle, CORE_TEMPERATURE))
        return GpuState(
            sm_mhz=None if clock is None else float(clock),
            reasons=() if bits is None else reasons_in(int(bits)),
            temperature_c=None if degrees is None else float(degrees),
        )

    def energy_j(self) -> float | None:
        """Joules that it has taken since the driver was loaded; None where it does not count them."""
        counted = self._told(lambda: self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if counted is None else int(counted) / 1e3

    def used_mb(self) -> float | None:
        """Its memory that is in use, whoever uses it, in 10^6 bytes; None where it cannot be told."""
        used = self._told(lambda: self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None if used is None else int(used) / 1e6

    def memory_of_processes(self) -> dict[int, float]:
        """Its memory that each process uses, in 10^6 bytes, by number; of those that are told."""
        found = self._told(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) or []
        return {process.pid: process.usedGpuMemory / 1e6 for process in found if process.usedGpuMemory is not None}

    def _told(self, ask: Callable[[], T]) -> T | None:
        """An answer of NVML's; None where there is no NVML, or it has none for this card."""
        if self._nvml is None:
            return None
        try:
            return ask()
        except self._nvml.NVMLError:
            return None


def open_card(index: int, load: Callable[[], Any] = load_driver) -> Card | None:
    """A GPU that this process sees; None where CUDA's driver has none of that number.

    Args:
        index: among those that are visible, from 0.
        load: gives the driver library, or raises OSError.
    """
    device = cuda_device(index, load)
    if device is None:
        return None
    try:
        import pynvml
    except ImportError:
        return Card(device, None, None, f"pip install {PACKAGE}")
    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
        return Card(device, nvml, nvml.nvmlDeviceGetHandleByPciBusId(device.bus_id))
    except nvml.NVMLError as error:
        return Card(device, None, None, f"NVML does not answer: {error}")


class GpuMemory:
    """The most of a card's memory that this process was seen to hold, in 10^6 bytes.

    It begins before the process opens the card, whose context takes memory too.

    Args:
        card: that is going to be opened.
        process: its number.
    """

    def __init__(self, card: Card, process: int | None = None) -> None:
        self._card = card
        self._process = os.getpid() if process is None else process
        # In a container NVML may tell the numbers of processes outside, among them this one's by chance.
        self._is_another = self._process in card.memory_of_processes()
        self._grown: float | None = 0.0
        self._own: float | None = None
        self._most: float | None = None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Look before and after this process uses the card, while no other of our own does."""
        before = self._card.used_mb()
        yield
        after = self._card.used_mb()
        if before is None or after is None or self._grown is None:
            self._grown = None
        else:
            self._grown += after - before
        own = None if self._is_another else self._card.memory_of_processes().get(self._process)
        self._own = own if own is not None else self._own
        seen = [peak for peak in (self._most, own if own is not None else self._grown) if peak is not None]
        self._most = max(seen, default=None)

    @property
    def peak_mb(self) -> float | None:
        """None where it cannot be told."""
        return self._most

    @property
    def notes(self) -> list[str]:
        """What the figure includes, where it is not the process's own."""
        if self._most is None or self._own is not None:
            return []
        return ["GPU memory is by how much that in use on the card grew: NVML does not tell it of this process"]


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
