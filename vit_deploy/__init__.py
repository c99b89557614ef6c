"""vit-deploy: a Vision Transformer from its checkpoint to the device, with the proof it still computes the same."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_LAZY = {
    "ViT": "vit_deploy.model.vit",
    "create_vision_transformer": "vit_deploy.model.vit",
    "export": "vit_deploy.api",
    "load": "vit_deploy.checkpoints.keras.model",
    "quantize": "vit_deploy.api",
    "read_images": "vit_deploy.api",
    "session": "vit_deploy.api",
    "verify": "vit_deploy.api",
}

__all__ = [
    "ViT",
    "__version__",
    "create_vision_transformer",
    "export",
    "load",
    "quantize",
    "read_images",
    "session",
    "verify",
]


def __getattr__(name: str) -> Any:
    # An engine takes seconds to import and a device may not have it, so the Keras side comes on demand.
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
