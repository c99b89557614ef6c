"""Make the golden files of keras-hub's dialect with keras-hub: `python tests/peers/make_keras_hub_golden.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from keras_hub_models import MODELS, answered, made

FOLDER = Path(__file__).parent / "golden" / "keras_hub"
PRESETS = ("vit_classifier",)
WITHOUT = ("dinov3_gated", "clip_tower", "metaclip_2", "siglip_tower")  # files of which others say as much


def main() -> None:
    """Write a checkpoint and its answers for each model, and one as a preset."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in sorted(MODELS.keys() - WITHOUT):
        model = made(name)
        model.save(FOLDER / f"{name}.keras")
        np.save(FOLDER / f"{name}_answers.npy", answered(model))
        if name in PRESETS:
            shutil.rmtree(FOLDER / f"{name}_preset", ignore_errors=True)
            model.save_to_preset(str(FOLDER / f"{name}_preset"))


if __name__ == "__main__":
    main()
