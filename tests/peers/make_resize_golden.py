"""Writes resize_golden.npz: what timm, torch and scipy make of small grids and kernels.

Run from the repository's root where torch, timm and scipy are installed: python -m tests.peers.make_resize_golden
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from tests import torchvision_stand_in
from tests.peers.resize_originals import KERNELS, POSITIONS

TARGET = Path(__file__).with_name("resize_golden.npz")
GRIDS = [
    ((14, 14), (7, 28)),
    ((7, 9), (14, 5)),
    ((1, 6), (3, 4)),
    ((6, 1), (4, 3)),
    ((4, 3), (9, 11)),
    ((5, 8), (5, 6)),
]
PATCHES = [((4, 6), (8, 9)), ((8, 6), (5, 3)), ((4, 6), (6, 3))]
DAY = (2023, 3, 30, 0, 0, 0)  # any, so that the same arrays are the same file


def main() -> None:
    torchvision_stand_in.install()
    rng = np.random.default_rng(0)
    arrays = {}
    for source, target in GRIDS:
        case = f"{source[0]}x{source[1]} {target[0]}x{target[1]}"
        grid = arrays[f"grid {case}"] = rng.standard_normal((*source, 2)).astype(np.float32)
        for convention, original in POSITIONS.items():
            arrays[f"{convention} {case}"] = original(grid, target)
    for source, target in PATCHES:
        case = f"{source[0]}x{source[1]} {target[0]}x{target[1]}"
        kernel = arrays[f"kernel {case}"] = rng.standard_normal((*source, 2, 3)).astype(np.float32)
        for convention in ("timm", "google"):
            arrays[f"{convention} patch {case}"] = KERNELS[convention](kernel, target)
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            file.writestr(zipfile.ZipInfo(f"{name}.npy", DAY), stream.getvalue(), zipfile.ZIP_DEFLATED)
    print(f"{TARGET}: {len(arrays)} arrays, {TARGET.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
