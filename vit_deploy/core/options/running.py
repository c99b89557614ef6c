"""Options of everything that runs an artifact in an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.options.option import Option, panel

MOST_THREADS = 1024  # more than any machine has; an engine would start them all


@panel("Running")
@dataclass(frozen=True)
class RuntimeOptions:
    """How to run.

    Args:
        threads: the threads for the work inside one call; None leaves the engine's own choice.
        provider: what executes the graph ("cpu", "cuda", …); None takes the engine's usual one.
        allow_tf32: whether a GPU may round the factors of fp32 products to 11 bits, as the engines do by themselves.
        device: which of the GPUs that this process sees, from 0; `CUDA_VISIBLE_DEVICES` says which these are.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        largest_batch: that calls are going to have; engines that are built for a range of batches build for this one.
    """

    threads: Annotated[
        int | None, Option(min=1, max=MOST_THREADS, help="For the work in one call.", show_default="all cores")
    ] = None
    provider: Annotated[
        str | None,
        Option(
            help="What executes the graph: cpu, cuda, …",
            show_default="the engine's own",
            values="vit_deploy.runtimes:known_providers",
        ),
    ] = None
    allow_tf32: bool = True
    device: Annotated[int, Option(min=0, help="Which GPU, of those that are visible.")] = 0
    cuda_graph: Annotated[bool, Option(help="Let a GPU record the kernels of a call once, and replay them.")] = False
    largest_batch: int | None = None
