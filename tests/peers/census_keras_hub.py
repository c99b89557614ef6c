"""The census of keras-hub's models: recorded answers, and what has windows or stages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers.census import Made, Row

SOURCE = "keras-hub"
GOLDEN = Path(__file__).parent / "golden" / "keras_hub"
SIZES = {"deit_classifier": (24, 32), "dinov2": (16, 16), "dinov2_registers": (16, 16), "dinov3": (12, 24)}
WHOLE = {"dinov3": (14, 24)}  # pixels, of which the patches leave some unread
SQUARE = ("clip", "metaclip_2_tower", "siglip")


def _recorded(name: str, folder: Path) -> Made:
    shutil.copy(GOLDEN / f"{name}.keras", folder / f"{name}.keras")
    height, width = (12, 12) if name in SQUARE else SIZES.get(name, (24, 32))
    whole = (14, 14) if name in SQUARE else WHOLE.get(name, (height, width))
    images = np.random.default_rng(9).standard_normal((2, *whole, 3)).astype(np.float32)
    answer = np.load(GOLDEN / f"{name}_answers.npy")
    return Made(folder / f"{name}.keras", images[:, :height, :width], answer)


def _saved(make: Callable[[Any], Any], folder: Path) -> Made:
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras_hub

    make(keras_hub.models).save_to_preset(str(folder / "preset"))
    return Made(folder / "preset")


def _vit_det(models: Any) -> Any:
    sizes = {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_dim": 20, "window_size": 2}
    return models.ViTDetBackbone(**sizes, image_shape=(64, 64, 3), global_attention_layer_indices=[0])


def _swin(models: Any) -> Any:
    sizes = {"image_shape": (64, 64, 3), "patch_size": 4, "embed_dim": 8, "depths": [1], "num_heads": [2]}
    return models.SwinTransformerBackbone(**sizes, window_size=4)


def rows() -> Iterator[Row]:
    """All of them."""
    for path in sorted(GOLDEN.glob("*.keras")):
        yield Row(SOURCE, path.stem, "model.save, recorded", partial(_recorded, path.stem))
    for name, make, has in (("ViTDet", _vit_det, "attention in windows"), ("Swin", _swin, "stages of several resolu")):
        yield Row(SOURCE, name, "save_to_preset", partial(_saved, make), has, needs=("keras_hub",), slow=True)
