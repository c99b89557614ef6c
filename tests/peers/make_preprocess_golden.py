"""Writes preprocess_golden.npz: what timm and transformers make of two image files.

Run from the repository's root where torch, timm and transformers are installed:
python -m tests.peers.make_preprocess_golden
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from tests.peers.preprocess_originals import CASES, original
from vit_deploy.core.synthetic_images import natural_pixels

TARGET = Path(__file__).with_name("preprocess_golden.npz")
FILES = {"landscape": (61, 83), "portrait": (90, 47)}
DAY = (2023, 3, 30, 0, 0, 0)  # any, so that the same arrays are the same file


def main() -> None:
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed, (name, size) in enumerate(FILES.items()):
            path = Path(folder) / f"{name}.png"
            Image.fromarray(natural_pixels(1, *size, 3, seed=seed)[0]).save(path)
            arrays[f"{name}.png"] = np.frombuffer(path.read_bytes(), np.uint8)
            for case in CASES:
                arrays[f"{case.family} {case.like} {name}"] = original(case, path).astype(np.float32)
    with zipfile.ZipFile(TARGET, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(
                zipfile.ZipInfo(f"{name.replace('/', ':')}.npy", DAY), buffer.getvalue(), zipfile.ZIP_DEFLATED
            )
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
