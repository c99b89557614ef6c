from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import vit_deploy
from vit_deploy import errors
from vit_deploy.errors import VitDeployError

KINDS = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, VitDeployError)]
SOURCES = sorted(Path(vit_deploy.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_was_wrong_and_what_to_do(kind):
    error = kind("found 3, expected 4", fix="give one more")
    assert error.message == "found 3, expected 4" and error.fix == "give one more"
    assert str(error) == "found 3, expected 4\n  fix: give one more"
    assert str(kind("found 3")) == "found 3" and kind("found 3").fix == ""
    assert isinstance(error, VitDeployError)


def test_the_tree_in_the_docstring_is_the_one_there_is():
    drawn = [line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line]
    assert sorted(drawn) == sorted(kind.__name__ for kind in KINDS if kind is not VitDeployError)
    assert all(kind.__mro__[1] is VitDeployError for kind in KINDS if kind is not VitDeployError)


def test_a_wrong_option_is_a_value_error_too():
    assert issubclass(errors.ConfigError, ValueError)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(path.parents[1])))
def test_nothing_catches_everything_and_goes_on(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = {name.id for name in ast.walk(node.type or ast.Name("BaseException")) if isinstance(name, ast.Name)}
        if caught & {"Exception", "BaseException"}:
            raises = [statement for statement in node.body if isinstance(statement, ast.Raise)]
            assert raises, f"{path}:{node.lineno} catches {caught} and does not raise"
