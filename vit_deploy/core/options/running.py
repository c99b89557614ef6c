"""Options of everything that runs an artifact in an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import MOST_THREADS, size_in_words

Runtime = Annotated[
    str | None,
    Option(
        help="Engine to run in.",
        show_default="the format's own",
        values="vit_deploy.runtimes:RUNTIMES",
        panel="Running",
    ),
]
Provider = Annotated[
    str | None,
    Option(
        help="What executes the graph: cpu, cuda, …",
        show_default="the engine's own",
        values="vit_deploy.runtimes:known_providers",
    ),
]
Threads = Annotated[
    int | None, Option(min=1, max=MOST_THREADS, help="For the work in one call.", show_default="all cores")
]
Device = Annotated[int, Option(min=0, help="Which GPU, of those that are visible.")]
CudaGraph = Annotated[bool, Option(help="Let a GPU record the kernels of a call once, and replay them.")]
RuntimeFiles = Annotated[
    str | None,
    Option(
        metavar="DIR",
        help="The node_modules with the JavaScript of --runtime web.",
        show_default="the one that VIT_DEPLOY_WEB names",
        panel="Running",
    ),
]
BrowserProgram = Annotated[
    str | None,
    Option(
        metavar="PROGRAM",
        help="Browser of --runtime web.",
        show_default="the first that is installed",
        panel="Running",
    ),
]

Signature = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Of a TFLite file for several sizes of images: the one to run, as images_224x448.",
        show_default=False,
        panel="Running",
    ),
]


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
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
    """

    threads: Threads = None
    provider: Provider = None
    allow_tf32: bool = True
    device: Device = 0
    cuda_graph: CudaGraph = False
    largest_batch: int | None = None
    runtime_files: RuntimeFiles = None
    browser: BrowserProgram = None


@panel("Running")
@dataclass(frozen=True)
class EngineOptions:
    """Which engine runs artifacts, and how.

    Args:
        runtime: engine; None takes the format's own.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: threads for the work inside one call; None leaves the engine's own choice.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
    """

    runtime: Runtime = None
    provider: Provider = None
    device: Device = 0
    cuda_graph: CudaGraph = False
    threads: Threads = None
    runtime_files: RuntimeFiles = None
    browser: BrowserProgram = None

    @property
    def engine(self) -> RuntimeOptions:
        """What of it a runtime takes."""
        return RuntimeOptions(
            self.threads,
            self.provider,
            device=self.device,
            cuda_graph=self.cuda_graph,
            runtime_files=self.runtime_files,
            browser=self.browser,
        )


TakenSize = Annotated[
    str | None,
    Option(
        metavar="N|HxW",
        help="Pixels of the images, of files for several sizes or for any.",
        show_default="the size that it was trained for",
        parse=size_in_words,
    ),
]
