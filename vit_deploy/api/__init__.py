"""The Python API: a function for each command, and sessions for programs that run an artifact themselves."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time each is imported when it is first used, so that a command starts with only its own
    from vit_deploy.api.artifacts import export, quantize
    from vit_deploy.api.cards import card
    from vit_deploy.api.checkpoints import build, convert, resize
    from vit_deploy.api.compiling import compile
    from vit_deploy.api.compressing import compress
    from vit_deploy.api.embedding import embed
    from vit_deploy.api.evaluating import evaluate
    from vit_deploy.api.insight import bundle, doctor, emulator, inspect
    from vit_deploy.api.models import as_checkpoint
    from vit_deploy.api.pages import demo
    from vit_deploy.api.predicting import predict
    from vit_deploy.api.proof import compare, verify
    from vit_deploy.api.reports import report
    from vit_deploy.api.sessions import as_artifact, read_images, session
    from vit_deploy.api.timing import bench

_LAZY = {
    "as_artifact": "vit_deploy.api.sessions",
    "as_checkpoint": "vit_deploy.api.models",
    "bench": "vit_deploy.api.timing",
    "build": "vit_deploy.api.checkpoints",
    "bundle": "vit_deploy.api.insight",
    "card": "vit_deploy.api.cards",
    "compare": "vit_deploy.api.proof",
    "compile": "vit_deploy.api.compiling",
    "compress": "vit_deploy.api.compressing",
    "convert": "vit_deploy.api.checkpoints",
    "demo": "vit_deploy.api.pages",
    "doctor": "vit_deploy.api.insight",
    "embed": "vit_deploy.api.embedding",
    "emulator": "vit_deploy.api.insight",
    "evaluate": "vit_deploy.api.evaluating",
    "export": "vit_deploy.api.artifacts",
    "inspect": "vit_deploy.api.insight",
    "predict": "vit_deploy.api.predicting",
    "quantize": "vit_deploy.api.artifacts",
    "read_images": "vit_deploy.api.sessions",
    "report": "vit_deploy.api.reports",
    "resize": "vit_deploy.api.checkpoints",
    "session": "vit_deploy.api.sessions",
    "verify": "vit_deploy.api.proof",
}

__all__ = [
    "as_artifact",
    "as_checkpoint",
    "bench",
    "build",
    "bundle",
    "card",
    "compare",
    "compile",
    "compress",
    "convert",
    "demo",
    "doctor",
    "embed",
    "emulator",
    "evaluate",
    "export",
    "inspect",
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
        if name in _LAZY:
            return getattr(importlib.import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
