"""vit-deploy: a Vision Transformer from its checkpoint to the device, with the proof it still computes the same."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; at run time each name is imported when it is first used
    from vit_deploy.api import (
        bench,
        build,
        bundle,
        card,
        compare,
        compile,
        compress,
        convert,
        demo,
        doctor,
        embed,
        emulator,
        evaluate,
        export,
        inspect,
        predict,
        quantize,
        read_images,
        report,
        resize,
        session,
        verify,
    )
    from vit_deploy.checkpoints.keras.model import load
    from vit_deploy.core.options import (
        ArchitectureOptions,
        CheckpointOptions,
        CompressOptions,
        PlanOptions,
        QuantizeOptions,
        RuntimeOptions,
    )
    from vit_deploy.errors import VitDeployError
    from vit_deploy.model.factory import create_vision_transformer
    from vit_deploy.model.vit import ViT

__version__ = "0.2.0"

_LAZY = {
    "ArchitectureOptions": "vit_deploy.core.options",
    "CheckpointOptions": "vit_deploy.core.options",
    "CompressOptions": "vit_deploy.core.options",
    "PlanOptions": "vit_deploy.core.options",
    "QuantizeOptions": "vit_deploy.core.options",
    "RuntimeOptions": "vit_deploy.core.options",
    "ViT": "vit_deploy.model.vit",
    "VitDeployError": "vit_deploy.errors",
    "bench": "vit_deploy.api",
    "build": "vit_deploy.api",
    "bundle": "vit_deploy.api",
    "card": "vit_deploy.api",
    "compare": "vit_deploy.api",
    "compile": "vit_deploy.api",
    "compress": "vit_deploy.api",
    "convert": "vit_deploy.api",
    "create_vision_transformer": "vit_deploy.model.factory",
    "demo": "vit_deploy.api",
    "doctor": "vit_deploy.api",
    "embed": "vit_deploy.api",
    "emulator": "vit_deploy.api",
    "evaluate": "vit_deploy.api",
    "export": "vit_deploy.api",
    "inspect": "vit_deploy.api",
    "load": "vit_deploy.checkpoints.keras.model",
    "predict": "vit_deploy.api",
    "quantize": "vit_deploy.api",
    "read_images": "vit_deploy.api",
    "report": "vit_deploy.api",
    "resize": "vit_deploy.api",
    "session": "vit_deploy.api",
    "verify": "vit_deploy.api",
}

__all__ = [
    "ArchitectureOptions",
    "CheckpointOptions",
    "CompressOptions",
    "PlanOptions",
    "QuantizeOptions",
    "RuntimeOptions",
    "ViT",
    "VitDeployError",
    "__version__",
    "bench",
    "build",
    "bundle",
    "card",
    "compare",
    "compile",
    "compress",
    "convert",
    "create_vision_transformer",
    "demo",
    "doctor",
    "embed",
    "emulator",
    "evaluate",
    "export",
    "inspect",
    "load",
    "predict",
    "quantize",
    "read_images",
    "report",
    "resize",
    "session",
    "verify",
]


if not TYPE_CHECKING:  # a type checker must not take every name for Any

    def __getattr__(name: str) -> Any:
        # An engine takes seconds to import and a device may not have it, so the Keras side comes on demand.
        if name in _LAZY:
            from vit_deploy.core.stderr import quiet_stderr

            with quiet_stderr():  # TensorFlow logs at import
                return getattr(importlib.import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"Any", "TYPE_CHECKING", "annotations", "importlib"})
