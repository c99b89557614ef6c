"""Options of commands that run any number of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from vit_deploy.core.options.option import Option, panel
from vit_deploy.core.options.running import EngineOptions, TakenSize

Workers = Annotated[
    int | None,
    Option(
        min=0,
        max=256,
        help="Processes that read and resize images ahead of the model; 0 for none.",
        show_default="one for each core, up to 8",
    ),
]
Column = Annotated[
    str | None, Option(help="Column of the images in Parquet files.", show_default="the only one that can be")
]


Ray = Annotated[
    str | None,
    Option(
        metavar="[ADDRESS]",
        help="Run on a Ray cluster: at an address as auto or HOST:PORT; without one, on this machine.",
        show_default=False,
    ),
]


@panel("Images")
@dataclass(frozen=True)
class StreamOptions:
    """How images are read.

    Args:
        workers: processes that decode ahead of the model; None for one for each core, up to 8.
        column: of the images in Parquet files; None finds the only one that can be.
        ray: address of a cluster that runs the model; "local" for one on this machine, None for none.
    """

    workers: Workers = None
    column: Column = None
    ray: Ray = None


@panel("Running")
@dataclass(frozen=True)
class EmbedOptions(EngineOptions):
    """How images are embedded.

    Args:
        runtime: engine; None takes the format's own.
        provider: what executes the graph; None takes the engine's usual one.
        device: which GPU of those that are visible, from 0.
        cuda_graph: whether a GPU records the kernels of a call once and replays them.
        threads: threads for the work inside one call; None shares the cores among the streams.
        runtime_files: the folder `node_modules` with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser, where one runs it; None takes the first that is installed.
        batch: images a call, where a file takes any number.
        streams: calls at the same time, each with a model of its own; None for two on a processor.
        top: how many of the likeliest classes are written in place of the vector; None for the vector.
        output_name: which output is written, of a file with several; None for logits, or the first without them.
        image_size: pixels of the images as "384x512", of files for several sizes or for any; None for their own.
    """

    batch: Annotated[
        int | None, Option(min=1, help="Images a call, where a file takes any number.", show_default="8")
    ] = None
    streams: Annotated[
        int | None,
        Option(
            min=1,
            max=64,
            help="Calls at the same time, each with a model of its own.",
            show_default="2 on a processor, else 1",
        ),
    ] = None
    top: Annotated[
        int | None, Option(min=1, help="Write the likeliest classes in place of the vector.", show_default=False)
    ] = None
    output_name: Annotated[
        str | None,
        Option(
            names=("--output",),
            metavar="NAME",
            help="The output that is written, of a file with several.",
            show_default="logits, else the first",
        ),
    ] = None
    image_size: TakenSize = None
