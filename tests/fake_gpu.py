"""Stand-ins for CUDA's driver library and for nvidia-ml-py, with the functions and the arguments of the real ones."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace


class NVMLError(Exception):
    """What NVIDIA's library raises."""


class FakeDriver:
    """libcuda.so.1 that sees some cards, each a dictionary with name, bus_id, capability and memory."""

    def __init__(self, *cards, version=13000, init=0):
        self.cards, self.version, self.init = cards, version, init

    def cuInit(self, flags):
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.cards)
        return 0

    def cuDeviceGet(self, device, ordinal):
        if ordinal >= len(self.cards):
            return 101  # CUDA_ERROR_INVALID_DEVICE
        device._obj.value = ordinal
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = self.version
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = self.cards[device.value]["name"].encode()[: length - 1]
        return 0

    def cuDeviceGetPCIBusId(self, bus_id, length, device):
        bus_id.value = self.cards[device.value]["bus_id"].encode()[: length - 1]
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.cards[device.value]["capability"][{75: 0, 76: 1}[attribute]]
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = self.cards[device.value]["memory"]
        return 0


H100 = {"name": "NVIDIA H100 80GB HBM3", "bus_id": "0000:1b:00.0", "capability": (9, 0), "memory": 85_000_000_000}
A10 = {"name": "NVIDIA A10", "bus_id": "0000:3a:00.0", "capability": (8, 6), "memory": 24_000_000_000}


class FakeNvml:
    """nvidia-ml-py on a machine with an H100 and an A10; a value that is an exception is raised.

    `state` is what each card answers, by its bus id.
    """

    def __init__(self):
        usual = {
            "energy": 5_000_000,
            "clock": 1980,
            "reasons": 0,
            "temperature": 40,
            "used": 1_000_000_000,
            "processes": [],
            "mig": [0, 0],
            "limit": 700_000,
        }
        self.state = {
            card["bus_id"]: {**usual, "uuid": f"GPU-{card['bus_id'][5:7]}", "name": card["name"]}
            for card in (H100, A10)
        }
        self.opened = self.closed = 0
        self.refuses = None
        self.module = SimpleNamespace(
            NVMLError=NVMLError,
            nvmlInit=self._begin,
            nvmlShutdown=self._end,
            nvmlDeviceGetHandleByPciBusId=lambda bus_id: bus_id,
            nvmlSystemGetDriverVersion=lambda: "580.65.06",
            nvmlDeviceGetUUID=self._told("uuid"),
            nvmlDeviceGetMigMode=self._told("mig"),
            nvmlDeviceGetComputeMode=lambda handle: 0,
            nvmlDeviceGetEnforcedPowerLimit=self._told("limit"),
            nvmlDeviceGetTotalEnergyConsumption=self._told("energy"),
            nvmlDeviceGetClockInfo=lambda handle, kind: self._told("clock")(handle) if kind == 1 else 0,
            nvmlDeviceGetCurrentClocksEventReasons=self._told("reasons"),
            nvmlDeviceGetTemperature=lambda handle, sensor: self._told("temperature")(handle) if sensor == 0 else 0,
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=self._told("used")(handle)),
            nvmlDeviceGetComputeRunningProcesses=self._told("processes"),
        )

    def _told(self, name):
        def answer(handle):
            value = self.state[handle][name]
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    def _begin(self):
        if self.refuses:
            raise NVMLError(self.refuses)
        self.opened += 1

    def _end(self):
        self.closed += 1


def running(megabytes, process=None):
    """One process in NVML's list."""
    used = None if megabytes is None else megabytes * 1_000_000
    return SimpleNamespace(pid=os.getpid() if process is None else process, usedGpuMemory=used)


def install(monkeypatch, nvml):
    """Let `import pynvml` find a stand-in; None for a machine without the package."""
    monkeypatch.setitem(sys.modules, "pynvml", None if nvml is None else nvml.module)
