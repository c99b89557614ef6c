"""Options of commands and functions, each written once as a field of a frozen dataclass.

A field whose type is `Annotated[type, Option(...)]` is an option of every command that takes its dataclass, under the
name of the field: `num_heads` is `--num-heads`. Only the standard library is imported, so that `--help` starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time each is imported when it is first used, so that a device has its own alone
    from vit_deploy.core.options.architecture import ArchitectureOptions
    from vit_deploy.core.options.commands import EvaluateOptions, PredictOptions
    from vit_deploy.core.options.compressing import CompressOptions
    from vit_deploy.core.options.option import Option, panel
    from vit_deploy.core.options.quantizing import QuantizeOptions
    from vit_deploy.core.options.reading import CheckpointOptions
    from vit_deploy.core.options.running import EngineOptions, RuntimeOptions
    from vit_deploy.core.options.tensorrt import PlanOptions

_LAZY = {
    "ArchitectureOptions": "vit_deploy.core.options.architecture",
    "CheckpointOptions": "vit_deploy.core.options.reading",
    "CompressOptions": "vit_deploy.core.options.compressing",
    "EngineOptions": "vit_deploy.core.options.running",
    "EvaluateOptions": "vit_deploy.core.options.commands",
    "Option": "vit_deploy.core.options.option",
    "PlanOptions": "vit_deploy.core.options.tensorrt",
    "PredictOptions": "vit_deploy.core.options.commands",
    "QuantizeOptions": "vit_deploy.core.options.quantizing",
    "RuntimeOptions": "vit_deploy.core.options.running",
    "panel": "vit_deploy.core.options.option",
}

__all__ = [
    "ArchitectureOptions",
    "CheckpointOptions",
    "CompressOptions",
    "EngineOptions",
    "EvaluateOptions",
    "Option",
    "PlanOptions",
    "PredictOptions",
    "QuantizeOptions",
    "RuntimeOptions",
    "panel",
]


if not TYPE_CHECKING:  # a type checker must not take every name for Any

    def __getattr__(name: str) -> Any:
        if name in _LAZY:
            return getattr(importlib.import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
