"""The energy that the processors took meanwhile, where the machine counts it.

Intel's and AMD's processors count it (RAPL), which Linux shows under /sys/class/powercap, only to the administrator
since the counters can betray secrets. NVIDIA's GPUs from Volta on count it as well (NVML), which the optional package
nvidia-ml-py reads. Counted is what all processors took, and the one GPU, whoever used them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a device without a GPU does without
    from vit_deploy.runtimes.cuda.card import Card

POWERCAP = Path("/sys/class/powercap")
LEAST_S = 0.9  # of all rounds together, which begin within a second of it


class EnergyMeter:
    """Joules since it was made, of all processor packages together."""

    def __init__(self, root: Path = POWERCAP) -> None:
        # intel-rapl:0 is a package; intel-rapl:0:0 a part of it, and "psys" the board around it: both would be counted
        # twice.
        zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
        packages = [zone for zone in zones if _words(zone / "name").startswith("package")]
        self._counters = [(package / "energy_uj", _number(package / "max_energy_range_uj")) for package in packages]
        self._begun = [_number(counter) for counter, _ in self._counters]

    def joules(self) -> float | None:
        """None where nothing counts, or this user may not read it."""
        total = 0
        for (counter, range_uj), begun in zip(self._counters, self._begun, strict=True):
            now = _number(counter)
            if now is None or begun is None:
                return None
            # The counter starts again at its range.
            total += now - begun if now >= begun else now - begun + (range_uj or 0)
        return total / 1e6 if self._counters else None


class GpuEnergyMeter:
    """Joules since it was made, of one NVIDIA GPU.

    Args:
        card: that counts; None for none.
    """

    def __init__(self, card: Card | None) -> None:
        self._card = card
        self._begun = None if card is None else card.energy_j()

    def joules(self) -> float | None:
        """None without a card, or where it does not count."""
        now = None if self._card is None else self._card.energy_j()
        return None if now is None or self._begun is None else now - self._begun


def gpu_energy(rounds_j: Sequence[float | None], rounds_ns: Sequence[int]) -> float | None:
    """Joules of all rounds together; None where one was not counted, or where they are too short to tell.

    A GPU's counter takes a step each 20 to 100 ms, so that a round begins and ends up to a step too late.

    Args:
        rounds_j: joules of each round.
        rounds_ns: the duration of each round, in nanoseconds.
    """
    known = [joules for joules in rounds_j if joules is not None]
    if len(known) < len(rounds_j) or sum(rounds_ns) < LEAST_S * 1e9:
        return None
    return sum(known)


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
