"""The processor: its name, or that of the board that it is on, and the instructions that engines can use.

The parts of Arm's and others' cores are those of `arch/arm64/include/asm/cputype.h` in Linux.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path("/")

# Implementer, then part, as /proc/cpuinfo writes them.
CORES: Mapping[str, Mapping[str, str]] = {
    "0x41": {
        "0xb76": "ARM1176",
        "0xc07": "Cortex-A7",
        "0xc08": "Cortex-A8",
        "0xc09": "Cortex-A9",
        "0xc0e": "Cortex-A17",
        "0xc0f": "Cortex-A15",
        "0xd03": "Cortex-A53",
        "0xd04": "Cortex-A35",
        "0xd05": "Cortex-A55",
        "0xd07": "Cortex-A57",
        "0xd08": "Cortex-A72",
        "0xd09": "Cortex-A73",
        "0xd0a": "Cortex-A75",
        "0xd0b": "Cortex-A76",
        "0xd0c": "Neoverse-N1",
        "0xd0d": "Cortex-A77",
        "0xd0e": "Cortex-A76AE",
        "0xd40": "Neoverse-V1",
        "0xd41": "Cortex-A78",
        "0xd42": "Cortex-A78AE",
        "0xd44": "Cortex-X1",
        "0xd46": "Cortex-A510",
        "0xd47": "Cortex-A710",
        "0xd48": "Cortex-X2",
        "0xd49": "Neoverse-N2",
        "0xd4b": "Cortex-A78C",
        "0xd4c": "Cortex-X1C",
        "0xd4d": "Cortex-A715",
        "0xd4e": "Cortex-X3",
        "0xd4f": "Neoverse-V2",
        "0xd80": "Cortex-A520",
        "0xd81": "Cortex-A720",
        "0xd82": "Cortex-X4",
        "0xd84": "Neoverse-V3",
        "0xd85": "Cortex-X925",
        "0xd87": "Cortex-A725",
        "0xd8e": "Neoverse-N3",
    },
    "0x46": {"0x001": "A64FX"},
    "0x48": {"0xd01": "TaiShan v110"},
    "0x4e": {"0x003": "NVIDIA Denver 2", "0x004": "NVIDIA Carmel"},
    "0x51": {
        "0x001": "Qualcomm Oryon",
        "0x802": "Kryo 3xx Gold",
        "0x803": "Kryo 3xx Silver",
        "0x804": "Kryo 4xx Gold",
        "0x805": "Kryo 4xx Silver",
    },
    "0x61": {
        "0x022": "Apple Icestorm (M1)",
        "0x023": "Apple Firestorm (M1)",
        "0x032": "Apple Blizzard (M2)",
        "0x033": "Apple Avalanche (M2)",
    },
    "0x6d": {"0xd49": "Azure Cobalt 100"},
    "0xc0": {"0xac3": "Ampere-1", "0xac4": "Ampere-1A"},
}

# What the kernels of the engines look for, by the kernel's own names for it: any of them will do.
FEATURES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "x86": {
        "AVX2": ("avx2",),
        "FMA": ("fma",),
        "AVX512": ("avx512f",),
        "VNNI": ("avx512_vnni", "avx_vnni"),
        "AVX512-BF16": ("avx512_bf16",),
        "AVX512-FP16": ("avx512_fp16",),
        "AMX": ("amx_tile",),
    },
    "arm": {
        "NEON": ("asimd", "neon"),
        "FP16": ("asimdhp",),
        "dotprod": ("asimddp",),
        "I8MM": ("i8mm",),
        "BF16": ("bf16",),
        "SVE": ("sve",),
        "SME": ("sme",),
    },
}


def cpu_model(root: Path) -> str:
    """The most telling of the names that the kernel gives; "unknown" where it gives none.

    On x86 that is the processor's own. Kernels on Arm give every processor of a kind the same one ("ARMv8 Processor
    rev 1 (v8l)"), and old ones on a Raspberry Pi the chip of its first model, so there the board's name comes first:
    `Model`, then the device tree, then `Hardware`, then the cores by implementer and part.

    Args:
        root: the folder that `proc` is in.
    """
    entries = list(_entries(_text(root / "proc/cpuinfo")))
    values = {key: value for key, value in reversed(entries) if value}  # the first of each
    names = (
        values.get("Model"),
        _text(root / "proc/device-tree/model").strip("\0").strip(),
        values.get("Hardware"),
        ", ".join(dict.fromkeys(_cores(entries))),
        values.get("model name"),
        platform.processor(),
    )
    return next(filter(None, names), "unknown")


def cpu_features(root: Path = ROOT, machine: str | None = None) -> dict[str, bool]:
    """What the kernels of the engines can use of this CPU; empty where it cannot be told.

    Args:
        root: the folder that `proc` is in.
        machine: architecture; None is this machine's.
    """
    entries = _entries(_text(root / "proc/cpuinfo"))
    flags = next((set(value.split()) for key, value in entries if key in ("flags", "Features")), set())
    family = "x86" if (machine or platform.machine()).lower() in ("x86_64", "amd64", "i686") else "arm"
    return {name: bool(flags & set(any_of)) for name, any_of in FEATURES[family].items()} if flags else {}


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()


def _cores(entries: list[tuple[str, str]]) -> Iterator[str]:
    """The kinds of cores, in the kernel's order; one that is not in the table by its numbers."""
    implementer = ""
    for key, value in entries:
        if key == "CPU implementer":
            implementer = value.lower()
        elif key == "CPU part":
            part = value.lower()
            yield CORES.get(implementer, {}).get(part, f"implementer {implementer} part {part}")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
