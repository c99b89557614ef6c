"""Options of the commands that run artifacts, on this machine and on others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.parsing import counts, milliseconds, thread_counts
from vit_deploy.core.options.running import (
    BrowserProgram,
    CudaGraph,
    Device,
    EngineOptions,
    Provider,
    Runtime,
    RuntimeFiles,
    Signature,
    TakenSize,
)
from vit_deploy.errors import UsageError

BATCH = (1,)
STEP_TIMEOUT_S = 600.0


@panel("Running")
@dataclass(frozen=True)
class ProofOptions:
    """How artifacts are proven, on this machine and on others.

    Args:
        runtime: engine; None for the format's own.
        provider: what executes the graph; None for the engine's own.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: numbers of threads to run with too.
        quick: whether only the golden images are run: no other batches, inputs and repeated runs.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        signature: the only one to prove of a file with several; None for all.
    """

    runtime: Runtime = None
    provider: Provider = None
    device: Device = 0
    cuda_graph: CudaGraph = False
    threads: Annotated[
        tuple[int, ...],
        Option(
            metavar="N,…",
            help="Run with these numbers of threads too.",
            show_default="none",
            parse=thread_counts,
        ),
    ] = ()
    quick: Annotated[bool, Option(help="Golden images alone: no other batches, inputs and repeated runs.")] = False
    runtime_files: RuntimeFiles = None
    browser: BrowserProgram = None
    signature: Signature = None


@panel("Measuring")
@dataclass(frozen=True)
class BenchOptions:
    """What is timed and for how long, on this machine and on others.

    Args:
        runtime: engines; empty for all that are installed and take the format.
        provider: what executes the graphs; empty for the usual one of each engine.
        batch: images a call, each number in turn.
        threads: threads for the work inside one call, each number in turn; empty for all cores.
        streams: calls at the same time, each with a model of its own.
        image_size: pixels of the images as "384x512", of files for several sizes or for any; None for their own.
        signature: the one that runs them, of a file with several; None for the first.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        under: milliseconds under which calls stay of the largest batch, which is looked for; None for no search.
        one_at_a_time: whether each case is loaded, measured and freed before the next.
        seconds: length of the calls of each case together.
        runs: calls for each case, instead of seconds.
        timeout: seconds for each step of a case, as loading.
        profile: whether each operator is timed too, in a run of its own.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.

    Raises:
        UsageError: options that exclude each other.
    """

    runtime: Annotated[
        tuple[str, ...],
        Option(
            help="Engine; repeat for more, or join by commas.",
            show_default="all that can run it",
            commas=True,
            values="vit_deploy.runtimes:RUNTIMES",
        ),
    ] = ()
    provider: Annotated[
        tuple[str, ...],
        Option(
            help="cpu, cuda, …, or a TFLite delegate's path; repeat for more, or join by commas.",
            show_default="the engine's own",
            commas=True,
            values="vit_deploy.runtimes:known_providers",
        ),
    ] = ()
    batch: Annotated[tuple[int, ...], Option(metavar="N,…", help="Images a call.", show_default="1", parse=counts)] = (
        BATCH
    )
    threads: Annotated[
        tuple[int, ...],
        Option(metavar="N,…", help="For the work in one call.", show_default="all cores", parse=thread_counts),
    ] = ()
    streams: Annotated[int, Option(min=1, help="Calls at the same time, each with a model of its own.")] = 1
    seconds: Annotated[float, Option(help="Of calls for each case.")] = 3.0
    image_size: TakenSize = None
    signature: Signature = None
    device: Device = 0
    cuda_graph: CudaGraph = False
    under: Annotated[
        float | None,
        Option(
            metavar="TIME",
            help="Find the largest batch whose calls take no longer, as 5ms.",
            parse=milliseconds,
        ),
    ] = None
    one_at_a_time: Annotated[bool, Option(help="Load, measure and free each case before the next, without turns.")] = (
        False
    )
    runs: Annotated[int | None, Option(min=1, help="Calls for each case, instead of seconds.")] = None
    profile: Annotated[bool, Option(help="Time each operator too, in a run of its own, where the engine tells.")] = (
        False
    )
    timeout: Annotated[
        float,
        Option(
            min=1,
            help="Seconds for each step of a case, as loading; with --on for each machine too, sending included.",
        ),
    ] = STEP_TIMEOUT_S
    runtime_files: RuntimeFiles = None
    browser: BrowserProgram = None

    def __post_init__(self) -> None:
        if self.under is not None and tuple(self.batch) != BATCH:
            found = ",".join(map(str, self.batch))
            raise UsageError(f"--under looks for the batch; expected no --batch, found {found}")


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
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        top: how many classes of each image.
        signature: which one runs, of a file with several; None for the first.
        image_size: pixels of the images as "384x512", of files for several sizes or for any; None for their own.
    """

    signature: Signature = None
    top: Annotated[int, Option(min=1, help="How many classes of each image.")] = 5
    image_size: TakenSize = None


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
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        batch: images a call, where a file takes any number.
        image_size: pixels of the images as "384x512", of files for several sizes or for any; None for their own.
    """

    batch: Annotated[int, Option(min=1, help="Images a call, where a file takes any number.")] = 32
    image_size: TakenSize = None
