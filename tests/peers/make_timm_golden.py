"""Writes golden/timm: small models as timm saves them, and what they make of three images.

Run from the repository's root where torch and timm are installed: python -m tests.peers.make_timm_golden
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests import torchvision_stand_in
from tests.peers import timm_families

TARGET = Path(__file__).parent / "golden" / "timm"


def main() -> None:
    torchvision_stand_in.install()
    import timm

    shutil.rmtree(TARGET, ignore_errors=True)
    for name in timm_families.CASES:
        folder = TARGET / name
        model = timm_families.make(timm, name)
        timm_families.save(timm, name, model, folder)
        images = timm_families.drawn_images(*timm_families.SMALL["img_size"])
        np.save(folder / "output.npy", timm_families.output(model, images))
        if name in (*timm_families.RESIZED, *timm_families.READ_AGAIN):
            resized = timm_families.make(timm, name)
            if name in timm_families.RESIZED:  # the others take images of any size
                resized.set_input_size(img_size=timm_families.NEW_SIZE)
            images = timm_families.drawn_images(*timm_families.NEW_SIZE)
            np.save(folder / "resized_output.npy", timm_families.output(resized, images))
    files = [path for path in TARGET.rglob("*") if path.is_file()]
    print(f"{TARGET}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
