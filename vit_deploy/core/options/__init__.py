"""Options of commands and functions, each written once as a field of a frozen dataclass.

A field whose type is `Annotated[type, Option(...)]` is an option of every command that takes its dataclass, under the
name of the field: `num_heads` is `--num-heads`. Only the standard library is imported, so that `--help` starts at once.
"""

from vit_deploy.core.options.answering import EvaluateOptions, PredictOptions
from vit_deploy.core.options.architecture import ArchitectureOptions
from vit_deploy.core.options.compressing import CompressOptions
from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.quantizing import QuantizeOptions
from vit_deploy.core.options.reading import CheckpointOptions
from vit_deploy.core.options.running import EngineOptions, RuntimeOptions
from vit_deploy.core.options.tensorrt import PlanOptions

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
