"""Every command and every snippet in the README runs as it stands."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import readme_files

from vit_deploy.core import cost
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [part.strip() for line in lines for part in line.split("&&")]


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order_and_succeed(tmp_path: Path) -> None:
    readme_files.write(tmp_path)
    ours = [command for command in commands() if command.startswith("vit-deploy ")]
    assert len(ours) >= 20
    for command in ours:
        arguments = shlex.split(command)[1:]
        if arguments[0] == "compress" and importlib.util.find_spec("tensorflow_model_optimization") is None:
            continue
        if "tensorrt" in command and importlib.util.find_spec("tensorrt_rtx") is None:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "vit_deploy", *arguments], cwd=tmp_path, capture_output=True, text=True
        )
        expected = 1 if "--unproven" in arguments else 0  # published, but nobody has proven it
        assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr


def test_what_else_the_readme_runs_is_installing_and_testing() -> None:
    others = [command for command in commands() if not command.startswith("vit-deploy ")]
    assert others == ['pip install -e ".[cpu]"', 'pip install -e ".[dev]"', "pytest"]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_the_python_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_readme_lists_the_scales_with_their_real_sizes() -> None:
    rows = re.findall(
        r"^\| (\w+)(?: \(patch 14\))? \| (\d+) / (\d+) / (\d+) \| ([\d.]+) M \| ([\d.]+) \|", README, re.M
    )
    assert [row[0] for row in rows] == list(SCALE_CONFIGS)
    for name, dim, heads, layers, parameters, gmacs in rows:
        config = ViTConfig.from_scale(name, patch_size=14 if name == "huge" else 16)
        assert (config.embed_dim, config.num_heads, config.num_layers) == (int(dim), int(heads), int(layers))
        assert f"{cost.num_parameters(config) / 1e6:.1f}" == parameters
        assert abs(cost.macs(config) / 1e9 - float(gmacs)) < 0.05


def test_every_file_the_readme_links_to_exists() -> None:
    root = Path(__file__).parent.parent
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    assert [target for target in targets if not (root / target).exists()] == []
