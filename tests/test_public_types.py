"""A user's type checker and editor see the public names with their types."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vit_deploy

FUNCTIONS = [name for name in vit_deploy.__all__ if name[0].islower()]


def mypy(program: Path) -> str:
    pytest.importorskip("mypy")
    settings = program.with_name("mypy.ini")
    settings.write_text("[mypy]\nstrict = true\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", os.devnull, program],
        capture_output=True,
        text=True,
        cwd=Path(vit_deploy.__file__).parents[1],
    )
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_users_program_is_checked_and_no_public_function_is_any(tmp_path):
    program = tmp_path / "program.py"
    calls = [
        'exported = vit_deploy.export("tiny", "out", formats=["onnx"], precisions="int8", image_size=(224, 320))',
        "reveal_type(exported[0].directory)",
        'quantized = vit_deploy.quantize(exported[0], "out", precisions=["fp16"], force=True)',
        "reveal_type(quantized.ok)",
        'resized = vit_deploy.resize("a.pth", "b.safetensors", image_size=384).result',
        "reveal_type(resized.after)",
        'vit_deploy.export("tiny", formatz="onnx")',
        'vit_deploy.convert("a.pth", 3)',
    ]
    revealed = [f"reveal_type(vit_deploy.{name})" for name in FUNCTIONS]
    lines = ["import vit_deploy", *revealed, *calls]
    program.write_text("\n".join(lines) + "\n")
    found = {}
    for text in mypy(program).splitlines():
        if match := re.match(rf".*{program.name}:(\d+): (\w+): (.*)", text):
            found.setdefault(lines[int(match[1]) - 1], []).append(match[3])
    for name in FUNCTIONS:
        (said,) = found[f"reveal_type(vit_deploy.{name})"]
        assert said.startswith('Revealed type is "def ('), (name, said)
        assert "*args: Any" not in said
    assert found["reveal_type(exported[0].directory)"] == ['Revealed type is "pathlib.Path"']
    assert found["reveal_type(quantized.ok)"] == ['Revealed type is "bool"']
    assert "dict[" in found["reveal_type(resized.after)"][0]
    assert 'Unexpected keyword argument "formatz"' in found[calls[-2]][0]
    assert "has incompatible type" in found[calls[-1]][0]


@pytest.mark.slow
def test_every_public_name_is_listed_by_dir_and_by_help():
    assert set(vit_deploy.__all__) <= set(dir(vit_deploy))
    assert not {"Any", "TYPE_CHECKING", "annotations", "importlib"} & set(dir(vit_deploy))
    done = subprocess.run(
        [sys.executable, "-c", "import vit_deploy; help(vit_deploy)"], capture_output=True, text=True, check=True
    )
    assert not [name for name in FUNCTIONS if f"{name}(" not in done.stdout]
