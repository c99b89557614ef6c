"""Writes golden/huggingface/: small models as transformers saves them, with images and what it answers to them.

Run from the repository's root where torch and transformers are installed: python -m tests.peers.make_huggingface_golden
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.peers.huggingface_models import CASES, answer, build, images_for, library, save

TARGET = Path(__file__).with_name("golden") / "huggingface"
EXPECTED = "expected.npz"
GOLDEN = (
    *("vit", "vit-newer", "vit-model", "deit", "deit-teacher", "dinov2", "dinov2-newer", "registers"),
    *("mae", "mae-newer", "clip", "clip-vision", "clip-projection", "siglip", "siglip-vision", "siglip-classifier"),
    *("beit", "beit-shared"),
)
PHOTO = (30, 42, 3)  # whose middle is no half pixel: there the processors differ among themselves
# The processors that published models of these families come with.
PROCESSORS = {
    "vit": ("ViTImageProcessorPil", {"size": {"height": 16, "width": 24}}),
    "deit": ("DeiTImageProcessorPil", {"size": {"height": 20, "width": 28}, "crop_size": {"height": 16, "width": 24}}),
    "dinov2": ("BitImageProcessorPil", {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}),
    "clip": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}),
    "siglip": ("SiglipImageProcessorPil", {"size": {"height": 16, "width": 16}}),
}


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    for name in GOLDEN:
        case, folder = CASES[name], TARGET / name
        model = build(case)
        save(model, case, folder)
        images = images_for(case, case.image_size)
        arrays = {"images": images, "answer": answer(model, case, images)}
        if name in PROCESSORS:
            processor, options = PROCESSORS[name]
            made = getattr(library(), processor)(**options)
            made.save_pretrained(folder)
            photo = np.random.default_rng(2).integers(0, 256, PHOTO, np.uint8)
            pixels = made(Image.fromarray(photo), return_tensors="np")["pixel_values"]
            arrays |= {"photo": photo, "processed": pixels[0].transpose(1, 2, 0)}
        if case.resized:
            images = images_for(case, case.resized)
            arrays |= {"images_resized": images, "answer_resized": answer(model, case, images, **case.call)}
        np.savez_compressed(folder / EXPECTED, **arrays)
        kilobytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e3
        print(f"{folder}: {kilobytes:.0f} kB: {', '.join(sorted(path.name for path in folder.iterdir()))}")


if __name__ == "__main__":
    main()
