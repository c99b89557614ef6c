"""The lowest versions that the `cpu` extra promises export, prove, quantize and time a model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.environments import clean, environment, versions
from tests.hub_server import TOKEN, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
EXTRA = "cpu"
WEIGHTS = "model.safetensors"


def promised(extra: str) -> list[Requirement]:
    """What the package needs with an extra, those that it takes in included, on this machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts, found = [*project["dependencies"], *project["optional-dependencies"][extra]], []
    while texts:
        text = texts.pop()
        if inner := re.fullmatch(r"vit-deploy\[(.+)\]", text):
            texts += [each for name in inner[1].split(",") for each in project["optional-dependencies"][name]]
        elif (requirement := Requirement(text)).marker is None or requirement.marker.evaluate():
            found.append(requirement)
    return found


def lowest(requirement: Requirement) -> str:
    [version] = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    return f"{requirement.name}=={version}"


def test_every_requirement_promises_a_lowest_version() -> None:
    assert len(pins := {lowest(requirement) for requirement in promised(EXTRA)}) > 10
    assert len({pin.partition("==")[0] for pin in pins}) == len(pins)


@pytest.mark.skipif(sys.version_info[:2] > (3, 12), reason="the lowest NumPy has no wheels for newer Pythons")
def test_the_lowest_versions_export_prove_quantize_and_time(tmp_path: Path) -> None:
    constraints = tmp_path / "lowest.txt"
    constraints.write_text("\n".join(map(lowest, promised(EXTRA))), encoding="utf-8")
    programs = environment(tmp_path / "venv", "-c", constraints, f"{ROOT}[{EXTRA}]")
    installed = versions(programs)
    for requirement in promised(EXTRA):
        assert Version(installed[requirement.name.lower()]) == Version(lowest(requirement).partition("==")[2])

    def run(*arguments: object, **settings: str) -> list[dict[str, object]]:
        command = [programs / "vit-deploy", *map(str, arguments), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=clean() | settings)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        assert document["ok"]
        return document["results"]

    # Without fp16, which the lowest ONNX Runtime computes so slowly on CPUs that comparing answers takes minutes.
    precisions = ["--precision", "fp32,int8,int8-static", "--no-speed"]
    made = run("export", "pico", "--format", "onnx,tflite,savedmodel", *precisions, "-o", tmp_path / "made")
    assert len(made) == 3 + 3 + 1
    assert len(run("verify", *(each["path"] for each in made))) == len(made)
    assert len(run("bench", *(each["path"] for each in made[:2]), "--runs", 3)) == 2
    check_names(run, tmp_path)


def check_names(run: Callable[..., list[dict[str, object]]], folder: Path) -> None:
    """A model is fetched by its name, and a card of it is pushed."""
    plain = ROOT / "tests" / "peers" / "golden" / "timm" / "plain"
    with serving() as hub:
        hub.add("timm/vit_plain.golden", {name: (plain / name).read_bytes() for name in ("config.json", WEIGHTS)})
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": ""}
        own |= {"NO_PROXY": "127.0.0.1,localhost", "HF_HUB_DISABLE_XET": "1"}
        name = "timm:vit_plain.golden"
        made = run("export", name, "--format", "onnx", "--no-speed", "-o", folder / "named", **own)
        assert run("inspect", made[0]["path"], **own)[0]["licence"] == "apache-2.0"
        pushed = run("card", made[0]["path"], "--push", "me/plain", "--yes", **own)
        assert pushed[0]["pushed"] and "onnx-fp32/model.onnx" in hub.repositories["me/plain"].files
