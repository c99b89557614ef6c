"""The templates that are read from the OpenCLIP that is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vit_deploy.errors import EngineError, MissingEngineError, UsageError
from vit_deploy.text import openai_templates
from vit_deploy.text.prompts import prompts

TEXTS = [f"number {number} of the {{}}." for number in range(80)]
AS_LAMBDAS = ", ".join(f"lambda c: f{text.replace('{}', '{c}')!r}" for text in TEXTS)
AS_TEXTS = ", ".join(map(repr, TEXTS))


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package that is found as OpenCLIP, whose `__init__` cannot be imported."""
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip" / "__init__.py").write_text("raise ImportError('no torch here')")
    return tmp_path / "open_clip"


@pytest.mark.parametrize("listed", [AS_LAMBDAS, AS_TEXTS])
def test_the_eighty_are_read_and_nothing_of_the_package_is_run(listed: str, beside: Path) -> None:
    (beside / "zero_shot_metadata.py").write_text(f"OPENAI_IMAGENET_TEMPLATES = ({listed})\nOTHERS = (1 / 0,)\n")

    assert [prompt.text for prompt in prompts(["openai-80"])] == TEXTS
    both = prompts([TEXTS[3], "openai-80", "a {}"])
    assert [prompt.text for prompt in both] == [TEXTS[3], *TEXTS[:3], *TEXTS[4:], "a {}"]


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        ("OPENAI_IMAGENET_TEMPLATES = (", "is damaged"),
        ("OTHERS = ()", "has no list OPENAI_IMAGENET_TEMPLATES"),
        ("OPENAI_IMAGENET_TEMPLATES = read()", "has no list OPENAI_IMAGENET_TEMPLATES"),
        (f"OPENAI_IMAGENET_TEMPLATES = ({AS_TEXTS}, 'one more {{}}')", "has 81 templates of 81 in a known form"),
        (f"OPENAI_IMAGENET_TEMPLATES = ({AS_TEXTS[:-6]}')", "has 79 templates of 80 in a known form, expected 80"),
        (f"OPENAI_IMAGENET_TEMPLATES = ({AS_LAMBDAS.replace('{c}', '{c!r}', 1)})", "has 79 templates of 80"),
        (f"OPENAI_IMAGENET_TEMPLATES = ({AS_LAMBDAS.replace('{c}', '{d}', 1)})", "has 79 templates of 80"),
    ],
)
def test_a_file_without_the_eighty_is_refused_by_what_it_has(held: str, problem: str, beside: Path) -> None:
    (beside / "zero_shot_metadata.py").write_text(held)

    with pytest.raises(EngineError) as caught:
        prompts(["openai-80"])
    assert problem in caught.value.message and str(beside) in caught.value.message
    assert "open_clip_torch" in caught.value.fix


def test_without_openclip_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_templates, "PACKAGE", "open_clip_that_is_not_there")

    with pytest.raises(
        MissingEngineError, match="OpenAI's 80 templates are read from OpenCLIP, which is not"
    ) as caught:
        prompts(["openai-80"])
    assert caught.value.fix.startswith("pip install --no-deps open_clip_torch")


def test_another_number_of_openais_is_taken_for_the_name_that_it_resembles() -> None:
    with pytest.raises(UsageError) as caught:
        prompts(["openai-8"])
    assert "did you mean 'openai-80'?" in caught.value.fix
