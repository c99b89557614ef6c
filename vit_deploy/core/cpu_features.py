"""Instructions of the CPU that the kernels of the engines can use."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from vit_deploy.core.host import ROOT

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


def cpu_features(root: Path = ROOT, machine: str | None = None) -> dict[str, bool]:
    """What the kernels of the engines can use of this CPU; empty where it cannot be told.

    Args:
        root: the folder that `proc` is in.
        machine: architecture; None is this machine's.
    """
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = [line.partition(":") for line in text.splitlines()]
    flags = next((set(value.split()) for key, _, value in lines if key.strip() in ("flags", "Features")), set())
    family = "x86" if (machine or platform.machine()).lower() in ("x86_64", "amd64", "i686") else "arm"
    return {name: bool(flags & set(any_of)) for name, any_of in FEATURES[family].items()} if flags else {}
