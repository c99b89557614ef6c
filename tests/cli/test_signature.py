"""Option dataclasses become options of commands, and what is given becomes their instances."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
import typer

from vit_deploy.cli.app import app
from vit_deploy.cli.signature import Without, command, options_of
from vit_deploy.core.options import Option, panel
from vit_deploy.core.options.parsing import numbers


class Colour(StrEnum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@panel("Painting")
@dataclass(frozen=True)
class Paint:
    colour: Annotated[Colour | None, Option(help="Which.")] = None
    layers: Annotated[int, Option(help="How many.", min=1, max=9)] = 2
    file: Annotated[Path | None, Option(help="What.", metavar="FILE")] = None
    spare: Annotated[tuple[str, ...], Option(help="What stays.", commas=True)] = ()
    mixture: Annotated[tuple[float, ...] | None, Option(help="Parts.", parse=numbers)] = None
    dry: Annotated[bool, Option(names=("--dry/--no-dry",), help="Afterwards.")] = True
    varnish: Annotated[bool | None, Option(help="Too.")] = None
    glossy: Annotated[bool, Option(help="Not matt.")] = False
    unseen: int = 5


@dataclass(frozen=True)
class Seeded:
    seed: Annotated[int, Option(help="Of the paint.")] = 0


def run(function, *arguments):
    """Run a command that takes option dataclasses."""
    app = typer.Typer()
    app.command()(command(function))
    app(list(arguments), standalone_mode=False)


def test_each_field_is_an_option_and_its_default_stays(capsys):
    def paint(wall: Annotated[str, typer.Argument()], *, how: Paint) -> int:
        print(wall, how == Paint())
        return 0

    run(paint, "north")
    assert capsys.readouterr().out == "north True\n"


def test_texts_become_the_types_of_the_fields(capsys, tmp_path):
    def paint(*, how: Paint) -> int:
        print(how)
        return 0

    run(
        paint,
        *("--colour", "dark-blue", "--layers", "3", "--file", "a.txt", "--spare", "door,window", "--spare", "sill"),
        *("--mixture", "0.5,1", "--no-dry", "--no-varnish", "--glossy"),
    )
    expected = Paint(
        Colour.DARK_BLUE, 3, Path("a.txt"), ("door", "window", "sill"), (0.5, 1.0), False, False, glossy=True
    )
    assert capsys.readouterr().out == f"{expected}\n"


def test_a_field_can_be_left_out_and_a_name_that_occurs_twice_is_one_option(capsys):
    def paint(
        seed: Annotated[int | None, Option(help="Of the wall.")] = None,
        *,
        how: Annotated[Paint, Without("layers", "dry")],
        seeded: Seeded,
    ) -> int:
        print(seed, seeded.seed, how.layers)
        return 0

    run(paint, "--seed", "7")
    run(paint)
    assert capsys.readouterr().out == "7 7 2\nNone 0 2\n"
    shown = inspect.signature(command(paint)).parameters
    assert [*shown][:3] == ["seed", "colour", "file"]
    assert {each.annotation.__metadata__[0].rich_help_panel for each in list(shown.values())[1:]} == {"Painting"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--colour", "green"], "--colour is 'green'; expected one of red, dark-blue"),
        (["--mixture", "a"], "--mixture is 'a'; expected numbers as 0.5 or 0.485,0.456,0.406"),
        (["--layers", "10"], "--layers"),
    ],
)
def test_what_cannot_be_is_a_usage_error_that_names_the_option(given, said):
    def paint(*, how: Paint) -> int:
        return 0

    app = typer.Typer()
    app.command()(command(paint))
    with pytest.raises(Exception) as raised:
        app(given, standalone_mode=False)
    assert said in raised.value.format_message()


def test_a_shell_completes_values_of_choices_after_commas_and_from_a_table_elsewhere():
    @dataclass(frozen=True)
    class Run:
        precision: Annotated[tuple[str, ...], Option(help="", commas=True, values=("fp16", "fp32", "int8"))] = ()
        format: Annotated[str | None, Option(help="", values="tests.cli.test_signature:COMPLETED")] = None

    options = {each.name: each.for_typer.annotation.__metadata__[0] for each in (*options_of(Run), *options_of(Paint))}
    assert options["precision"].autocompletion("fp") == ["fp16", "fp32"]
    assert options["precision"].autocompletion("int8,fp3") == ["int8,fp32"]
    assert options["format"].autocompletion("o") == ["onnx"]
    assert options["colour"].autocompletion("") == ["red", "dark-blue"]
    assert options["colour"].metavar == "red|dark-blue"
    assert options["file"].autocompletion is None


def test_every_table_that_a_shell_completes_from_is_there_and_has_values():
    group = typer.main.get_command(app)
    completed = [param for one in group.commands.values() for param in one.params if param._custom_shell_complete]
    assert len(completed) > 3
    for option in completed:
        assert option.shell_complete(None, ""), option.name


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("export --precision int8,fp", {"int8,fp16", "int8,fp32"}),
        ("verify out --runtime onn", {"onnxruntime"}),
        ("resize a.pth --like dinov2-", {"dinov2-registers"}),
        ("build pi", {"pico"}),
    ],
)
def test_what_is_typed_is_completed(typed, completed):
    words = f"vit-deploy {typed}"
    environment = {
        **os.environ,
        "_VIT_DEPLOY_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([sys.executable, "-m", "vit_deploy"], capture_output=True, text=True, env=environment)
    assert set(done.stdout.split()) == completed, done.stderr


COMPLETED = ("onnx", "tflite")


def test_the_options_import_the_standard_library_alone():
    program = """
import importlib, pkgutil, sys
import vit_deploy
before = set(sys.modules)
import vit_deploy.core.options
for each in pkgutil.iter_modules(vit_deploy.core.options.__path__):
    importlib.import_module(f"vit_deploy.core.options.{each.name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - set(sys.stdlib_module_names)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vit_deploy"]
