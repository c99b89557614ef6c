"""Every command and every snippet in the README runs as it stands."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import typer.main

from tests.hub_server import serving
from vit_deploy.cli.app import app
from vit_deploy.core import cost
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.origin import licence_in
from vit_deploy.runtimes import RUNTIMES

ROOT = Path(__file__).parent.parent
FRONT = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
OTHERS = ("samples/README.md", "samples/ci/README.md", "benchmarks/README.md")
EVERY = [pytest.param(path, id=path.name) for path in (FRONT, *DOCS)]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


NAMED = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"  # the model of a hub that the README takes


ON_ANY_MACHINE = {"10%": "900%"}  # a limit on times that a machine under other work keeps as well


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands for which a hub on loopback has the README's model, with random weights."""
    from samples.example_files import write_timm_folder

    folder = tmp_path_factory.mktemp("hub")
    write_timm_folder(folder / "model", num_classes=1000)
    (folder / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    with serving() as served:
        served.add(NAMED.replace(":", "/"), folder / "model")
        own = {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(folder / "home"), "NO_PROXY": "127.0.0.1,localhost"}
        yield {**os.environ, **own, "HF_HUB_OFFLINE": ""}


def execute(page: Path, folder: Path, environment: dict[str, str]) -> None:
    """Run all commands of a page in their order; installing and testing are what this test is part of."""
    for command in commands(page):
        program, *arguments = shlex.split(command)
        if program in ("pip", "pytest"):
            continue
        if "compress" in arguments and importlib.util.find_spec("tensorflow_model_optimization") is None:
            continue
        if ("--tensorrt" in arguments or "tensorrt-fp16" in command) and importlib.util.find_spec(
            "tensorrt_rtx"
        ) is None:
            continue
        if "tflm" in command and importlib.util.find_spec("tflite_micro") is None:
            continue
        if "ethos-u" in command and importlib.util.find_spec("ethosu") is None:
            continue
        if ".parquet" in command and importlib.util.find_spec("pyarrow") is None:
            continue
        if arguments[0] == "demo" and not environment.get("VIT_DEPLOY_WEB"):
            continue
        if {"web", "wasm"} & set(arguments) and RUNTIMES["web"].missing():
            continue
        if "--ray" in arguments and not all(map(importlib.util.find_spec, ("ray", "pandas", "pyarrow"))):
            continue
        run = {"vit-deploy": [sys.executable, "-m", "vit_deploy"], "python": [sys.executable], "tar": ["tar"]}[program]
        arguments = [ON_ANY_MACHINE.get(word, word) for word in arguments]
        arguments = [str(ROOT / word) if word.startswith("samples/") else word for word in arguments]
        done = subprocess.run([*run, *arguments], cwd=folder, capture_output=True, text=True, env=environment)
        expected = 1 if "--unproven" in arguments else 0  # published, but nobody has proven it
        assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, hub: dict[str, str]) -> Path:
    """A folder in which all commands of the README were run."""
    folder = tmp_path_factory.mktemp("readme")
    execute(FRONT, folder, hub)
    return folder


@pytest.fixture(scope="module")
def pages(request: pytest.FixtureRequest, followed: Path, hub: dict[str, str]) -> Iterator[dict[Path, Future[None]]]:
    """What becomes of the pages that are tested, two at a time: each needs what the README made, and no other page."""
    name = "test_the_commands_of_a_page_run_in_order_after_those_of_the_readme"
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    asked = [item.callspec.params["page"] for item in items if item.originalname == name]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(execute, page, followed, hub) for page in asked}


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order_and_succeed(followed: Path) -> None:
    ours = [command for command in commands(FRONT) if command.startswith("vit-deploy ")]
    assert len(ours) >= 20
    assert (followed / "report.html").stat().st_size
    assert "license" not in (followed / "model-card.md").read_text(encoding="utf-8")  # the sample's model has none
    named = followed / "artifacts" / f"{NAMED.partition(':')[2]}-224x224" / "tflite-int8"
    assert licence_in(read_artifact(named).provenance) == "apache-2.0"


def test_the_first_command_after_the_installation_takes_a_model_by_its_name() -> None:
    others = [command for command in commands(FRONT) if shlex.split(command)[0] not in ("pip", "pytest")]
    assert others[1] == f"vit-deploy export {NAMED} --format tflite --precision int8"


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(path, id=path.name) for path in DOCS])
def test_the_commands_of_a_page_run_in_order_after_those_of_the_readme(
    page: Path, pages: dict[Path, Future[None]]
) -> None:
    pages[page].result()


def test_what_else_the_readme_runs_is_installing_and_testing() -> None:
    others = [command for command in commands(FRONT) if shlex.split(command)[0] in ("pip", "pytest")]
    assert others == ['pip install -e ".[cpu]"', 'pip install -e ".[dev]"', "pytest"]
    assert [command for page in DOCS for command in commands(page) if not command.startswith("vit-deploy ")] == []


def test_a_limit_that_is_read_as_advice_is_one_and_a_busy_machine_is_given_a_wider_one() -> None:
    (limit,) = re.findall(r"--max-regression (\S+)", "\n".join(commands(FRONT)))
    assert float(limit.rstrip("%")) <= 20 and limit in ON_ANY_MACHINE


def test_no_command_is_there_twice() -> None:
    every = [command for page in (FRONT, *DOCS) for command in commands(page)]
    assert sorted(every) == sorted(set(every))


def test_what_the_commands_of_the_readme_take_was_made_by_a_line_above() -> None:
    read = {"--against", "--data", "--images", "--calibrate", "--baseline"}
    written = {"-o", "--save", "--junit", "--markdown", "--triton"}
    made = ["tiny", "pico", NAMED]
    for command in commands(FRONT):
        program, *words = shlex.split(command)
        if command == "python samples/example_files.py":
            made += ["vit_tiny_timm", "colleague.onnx", "tiny_clip", "labels.txt", "photo.jpg", "photos"]
        if program != "vit-deploy":
            continue
        pairs = list(itertools.pairwise(words))
        # An argument follows the command's name or another argument, or the option that takes it.
        for before, word in pairs:
            if before in read or not (before.startswith("-") or word.startswith("-")):
                assert any(word == name or word.startswith(f"{name}/") for name in made), f"{command}: {word}"
        made += [word for before, word in pairs if before in written]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks(FRONT, "python"))
def test_the_python_of_the_readme_runs_after_its_commands(block: str, followed: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=followed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_map_of_the_package_is_its_listing() -> None:
    (tree,) = re.findall(r"^```\nvit_deploy/\n(.*?)^```", FRONT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    told = [line.split()[0] for line in tree.splitlines()]
    package = ROOT / "vit_deploy"
    there = [path.name + "/" * path.is_dir() for path in package.iterdir() if path.name != "__pycache__"]
    assert told == sorted(told, key=str.lower) and sorted(told) == sorted(there)
    assert all(len(line.split()) > 2 for line in tree.splitlines())  # each with what is inside


OF_OTHER_PROGRAMS = {"--glob", "--install-completion", "--no-deps"}  # Hadoop's, Typer's, pip's


@pytest.mark.parametrize("page", EVERY)
def test_every_option_that_a_page_names_is_one(page: Path) -> None:
    group = typer.main.get_group(app)
    parameters = [parameter for command in (group, *group.commands.values()) for parameter in command.params]
    known = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z\d-]*", page.read_text(encoding="utf-8")))
    assert sorted(told - known - OF_OTHER_PROGRAMS) == []


def test_the_table_of_formats_says_what_their_files_may_be_made_for() -> None:
    text = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    for name, row in re.findall(r"^\| `(onnx|tflite|savedmodel)` (.*)$", text, re.M):
        told = re.findall(r"`--for ([^`]*)`", row)
        targets = [str(target) for target in FORMATS[name].precisions if target != "cpu"]
        assert [target for found in told for target in found.split("\\|")] == targets


def test_every_extra_is_in_the_table() -> None:
    (table,) = re.findall(r"^\| extra \| for \|\n\|---\|---\|\n((?:\|.*\n)+)", FRONT.read_text(encoding="utf-8"), re.M)
    told = [name for row in table.splitlines() for name in re.findall(r"`([\w-]+)`", row.split("|")[1])]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(told) == sorted(project["optional-dependencies"])


def test_the_scales_are_listed_with_their_real_sizes() -> None:
    rows = re.findall(
        r"^\| (\w+)(?: \(patch 14\))? \| (\d+) / (\d+) / (\d+) \| ([\d.]+) M \| ([\d.]+) \|",
        (ROOT / "docs" / "model.md").read_text(encoding="utf-8"),
        re.M,
    )
    assert [row[0] for row in rows] == list(SCALE_CONFIGS)
    for name, dim, heads, layers, parameters, gmacs in rows:
        config = ViTConfig.from_scale(name, patch_size=14 if name == "huge" else 16)
        assert (config.embed_dim, config.num_heads, config.num_layers) == (int(dim), int(heads), int(layers))
        assert f"{cost.num_parameters(config) / 1e6:.1f}" == parameters
        assert abs(cost.macs(config) / 1e9 - float(gmacs)) < 0.05


@pytest.mark.parametrize("page", [*EVERY, *(pytest.param(ROOT / name, id=name) for name in OTHERS)])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    targets = re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def anchors(page: Path) -> list[str]:
    """What a link may name of a page: its headings in lower case, with hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", [pytest.param(path, id=path.name) for path in DOCS])
def test_every_page_is_linked_from_the_readme(page: Path) -> None:
    assert f"](docs/{page.name}" in FRONT.read_text(encoding="utf-8")
