"""The table of commands."""

from __future__ import annotations

from inspect import getdoc
from typing import Annotated

import typer
from rich.markup import escape

from vit_deploy import __version__
from vit_deploy.cli.bench import bench
from vit_deploy.cli.build import build
from vit_deploy.cli.bundle import bundle
from vit_deploy.cli.compare import compare
from vit_deploy.cli.compress import compress
from vit_deploy.cli.convert import convert
from vit_deploy.cli.doctor import doctor
from vit_deploy.cli.evaluate import evaluate
from vit_deploy.cli.export import export
from vit_deploy.cli.inspect import inspect
from vit_deploy.cli.predict import predict
from vit_deploy.cli.quantize import quantize
from vit_deploy.cli.report import report
from vit_deploy.cli.resize import resize
from vit_deploy.cli.verify import verify

app = typer.Typer(
    name="vit-deploy",
    help="Take a Vision Transformer from its checkpoint to the device: export it, prove it, measure it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    build,
    convert,
    resize,
    export,
    quantize,
    verify,
    compare,
    bench,
    report,
    evaluate,
    compress,
    predict,
    bundle,
    inspect,
    doctor,
):
    # Square brackets are markup in a help text, and those that mean nothing are left out.
    app.command(help=escape(getdoc(command) or ""))(command)


def command_names() -> list[str]:
    """Names of all commands."""
    return [str(getattr(command.callback, "__name__", "")) for command in app.registered_commands]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vit-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass
