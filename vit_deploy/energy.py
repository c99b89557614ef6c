"""How much energy did the processors take meanwhile, where the machine counts it?

Intel's and AMD's processors count it (RAPL), which Linux shows under /sys/class/powercap, to the administrator alone
since the counters can betray secrets. NVIDIA's GPUs from Volta on count it as well (NVML), which the optional package
nvidia-ml-py reads. Counted is the whole machine, whoever used it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")


class EnergyMeter:
    """Joules since it was made, of all processor packages together."""

    def __init__(self, root: Path = POWERCAP) -> None:
        # intel-rapl:0 is a package; intel-rapl:0:0 a part of it, and "psys" the board around it: both would be counted
        # twice.
        zones = sorted(each for each in root.glob("intel-rapl:*") if each.name.count(":") == 1)
        packages = [each for each in zones if _words(each / "name").startswith("package")]
        self._counters = [(each / "energy_uj", _number(each / "max_energy_range_uj")) for each in packages]
        self._begun = [_number(counter) for counter, _ in self._counters]

    def joules(self) -> float | None:
        """None where nothing counts, or this user may not read it."""
        total = 0
        for (counter, range_uj), begun in zip(self._counters, self._begun, strict=True):
            now = _number(counter)
            if now is None or begun is None:
                return None
            # The counter starts anew at its range.
            total += now - begun if now >= begun else now - begun + (range_uj or 0)
        return total / 1e6 if self._counters else None


class GpuEnergyMeter:
    """Joules since it was made, of all NVIDIA GPUs together."""

    def __init__(self) -> None:
        self._begun = _gpu_millijoules()

    def joules(self) -> float | None:
        """None without nvidia-ml-py, without a GPU, or where one of them does not count."""
        now = _gpu_millijoules()
        return None if now is None or self._begun is None else (now - self._begun) / 1e3


def _gpu_millijoules() -> int | None:
    try:
        import pynvml
    except ImportError:
        return None
    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return None
    try:
        gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return sum(int(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) for gpu in gpus) if gpus else None
    except nvml.NVMLError:  # an older GPU
        return None
    finally:
        nvml.nvmlShutdown()


def _words(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
