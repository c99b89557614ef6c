"""The table of commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import getdoc
from typing import Annotated

import typer
from rich.markup import escape

from vit_deploy import __version__
from vit_deploy.cli.bench import bench
from vit_deploy.cli.build import build
from vit_deploy.cli.bundle import bundle
from vit_deploy.cli.card import card
from vit_deploy.cli.compare import compare
from vit_deploy.cli.compile import compile
from vit_deploy.cli.completion import completion
from vit_deploy.cli.compress import compress
from vit_deploy.cli.convert import convert
from vit_deploy.cli.demo import demo
from vit_deploy.cli.doctor import doctor
from vit_deploy.cli.embed import embed
from vit_deploy.cli.emulator import emulator
from vit_deploy.cli.evaluate import evaluate
from vit_deploy.cli.export import export
from vit_deploy.cli.help_pages import WholeNames
from vit_deploy.cli.inspect import inspect
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.predict import predict
from vit_deploy.cli.quantize import quantize
from vit_deploy.cli.report import report
from vit_deploy.cli.resize import resize
from vit_deploy.cli.signature import command
from vit_deploy.cli.verify import verify

NAME = "vit-deploy"

app = typer.Typer(
    name=NAME,
    help="Take a Vision Transformer from its checkpoint to the device: export it, prove it, measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command_names() -> list[str]:
    """Names of all commands."""
    return [str(getattr(registered_command.callback, "__name__", "")) for registered_command in app.registered_commands]


@command
def version(*, printing: OutputOptions) -> int:
    """Show the version."""
    from vit_deploy.cli.output import Output

    if not printing.json:
        print(f"{NAME} {__version__}")
    return Output("version", printing).finish([{"version": __version__}])


@command
def help(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[COMMAND]",
            help="Its arguments and options.",
            show_default="all commands",
            autocompletion=completion("vit_deploy.cli.app:command_names"),
        ),
    ] = None,
    *,
    printing: OutputOptions,
) -> int:
    """Show what a command takes, or which commands there are."""
    from vit_deploy.cli.output import Output

    about = {entry.name: entry for entry in COMMANDS}
    if topic is not None and topic not in about:
        raise typer.BadParameter(f"there is no command {topic!r}; expected one of {', '.join(about)}")
    if not printing.json:
        app([*([topic] if topic is not None else []), "--help"], standalone_mode=False, prog_name=NAME)
    shown = [about[topic]] if topic is not None else COMMANDS
    records = [{"command": entry.name, "help": entry.help, "example": entry.example} for entry in shown]
    return Output("help", printing).finish(records)


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Args:
        function: what it calls.
        panel: heading that it stands under.
        example: a command line, shown at the end of its help.
    """

    function: Callable[..., int]
    panel: str
    example: str

    @property
    def name(self) -> str:
        """The word that it is called by."""
        return self.function.__name__

    @property
    def help(self) -> str:
        """What it does."""
        return getdoc(self.function) or ""


CHECKPOINTS, ARTIFACTS, PROOF, SPEED, MORE = "Checkpoints", "Artifacts", "Proof", "Speed", "More"

COMMANDS = (
    Command(build, CHECKPOINTS, "vit-deploy build tiny -o tiny.keras --image-size 384x512"),
    Command(convert, CHECKPOINTS, "vit-deploy convert model.pth -o model.safetensors"),
    Command(resize, CHECKPOINTS, "vit-deploy resize model.pth --image-size 384 -o larger.safetensors"),
    Command(compress, CHECKPOINTS, "vit-deploy compress model.keras --method prune --data photos -o pruned.keras"),
    Command(export, ARTIFACTS, "vit-deploy export model.pth -f onnx,tflite -p fp32,int8 -o artifacts"),
    Command(quantize, ARTIFACTS, "vit-deploy quantize artifacts/onnx-fp32 -p int8-static -o artifacts"),
    Command(compile, ARTIFACTS, "vit-deploy compile artifacts/tflite-int8-full --for ethos-u55-256 -o npu"),
    Command(bundle, ARTIFACTS, "vit-deploy bundle artifacts -o for-the-device.tar.gz"),
    Command(card, ARTIFACTS, "vit-deploy card artifacts -o README.md --results verify.json bench.json"),
    Command(demo, ARTIFACTS, "vit-deploy demo artifacts/onnx-int8 -o page.html --runtime-files node_modules"),
    Command(verify, PROOF, "vit-deploy verify artifacts --locate"),
    Command(compare, PROOF, "vit-deploy compare artifacts/onnx-fp32 artifacts/tflite-fp32"),
    Command(evaluate, PROOF, "vit-deploy evaluate artifacts --data photos"),
    Command(predict, PROOF, "vit-deploy predict artifacts/onnx-int8 cat.jpg dog.jpg"),
    Command(embed, PROOF, "vit-deploy embed artifacts/onnx-fp32 --data photos -o features.parquet"),
    Command(bench, SPEED, "vit-deploy bench artifacts --batch 1,8 --save results.json"),
    Command(report, SPEED, "vit-deploy report results.json -o report.html"),
    Command(inspect, MORE, "vit-deploy inspect model.pth"),
    Command(doctor, MORE, "vit-deploy doctor"),
    Command(emulator, MORE, "vit-deploy emulator setup"),
    Command(version, MORE, "vit-deploy version"),
    Command(help, MORE, "vit-deploy help export"),
)

for entry in COMMANDS:
    # Square brackets are markup in a help text, and those that mean nothing are left out.
    app.command(
        cls=WholeNames,
        help=escape(entry.help),
        epilog=escape(f"Example: {entry.example}"),
        rich_help_panel=entry.panel,
    )(entry.function)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass
