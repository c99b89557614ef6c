"""Options of commands that run artifacts on images of the user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.running import EngineOptions


@panel("Running")
@dataclass(frozen=True)
class PredictOptions(EngineOptions):
    """How images are classified.

    Args:
        runtime: engine; None takes the format's own.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: threads for the work inside one call; None leaves the engine's own choice.
        top: how many classes of each image.
    """

    top: Annotated[int, Option(min=1, help="How many classes of each image.")] = 5


@panel("Running")
@dataclass(frozen=True)
class EvaluateOptions(EngineOptions):
    """How labelled images are run.

    Args:
        runtime: engine; None takes the format's own.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: threads for the work inside one call; None leaves the engine's own choice.
        batch: images a call, where a file takes any number.
    """

    batch: Annotated[int, Option(min=1, help="Images a call, where a file takes any number.")] = 32
