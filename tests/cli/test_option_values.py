"""Values of options: lists that are repeated or joined by commas, and percentages."""

from __future__ import annotations

import pytest
import typer

from vit_deploy.cli.app import app
from vit_deploy.cli.options import split_at_commas
from vit_deploy.core.options import parsing


@pytest.mark.parametrize(
    ("given", "values"),
    [
        (["a", "b"], ["a", "b"]),
        (["a,b"], ["a", "b"]),
        (["a, b", "c"], ["a", "b", "c"]),
        (["a,b", "b"], ["a", "b"]),
        (None, None),
    ],
)
def test_lists_are_repeated_or_joined_by_commas(given, values):
    assert split_at_commas(given) == values


def test_a_path_that_is_there_is_one_value(tmp_path, monkeypatch):
    (tmp_path / "one,two.so").touch()
    monkeypatch.chdir(tmp_path)
    assert split_at_commas(["one,two.so", "cpu,xnnpack"]) == ["one,two.so", "cpu", "xnnpack"]


@pytest.mark.parametrize("given", [["a,"], [","], [""], ["a", " "]])
def test_nothing_beside_a_comma_is_bad_usage(given):
    with pytest.raises(typer.BadParameter, match="expected values as a or a,b"):
        split_at_commas(given)


def test_every_option_that_repeats_takes_commas_too():
    group = typer.main.get_command(app)
    repeated = {
        f"{name} {param.opts[0]}": param.callback is not None
        for name, command in group.commands.items()
        for param in command.params
        if param.param_type_name == "option" and param.multiple
    }
    paths = {"report --output", "card --results", "embed --data", "evaluate --data", "evaluate --train"}
    assert "export --format" in repeated and "bench --provider" in repeated
    # Names of files may have commas, and so may sentences.
    split = {name for name, at_commas in repeated.items() if at_commas or name.endswith(" --template")}
    assert repeated.keys() - split - paths == set()


@pytest.mark.parametrize(("text", "value"), [("5%", 0.05), ("5", 0.05), ("0.5", 0.005), ("0%", 0.0), ("150%", 1.5)])
def test_a_percentage_is_told_with_its_sign_or_without(text, value):
    assert parsing.percentage(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["ten", "-5%", "nan", "", "%", "5%%", "inf"])
def test_what_is_no_percentage_is_bad_usage(text):
    with pytest.raises(ValueError, match="a percentage as 5% or 5"):
        parsing.percentage(text)
