"""The wheel and the source distribution hold what they have to, and install and run where there is nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from test_boundaries import ENGINES

import vit_deploy

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vit_deploy"
DATA = (
    "checkpoints/timm/architectures.csv",
    "core/artifact.schema.json",
    "performance/report/page.css",
    "performance/report/page.js",
    "py.typed",
)
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, vit_deploy
names = [each.name for each in pkgutil.walk_packages(vit_deploy.__path__, "vit_deploy.", onerror=lambda name: None)]
lacking = {}
for name in names:
    if not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            lacking[name] = error.name
print(json.dumps({"file": vit_deploy.__file__, "modules": len(names), "lacking": lacking}))
"""


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def environment(folder: Path, *wanted: str | Path) -> Path:
    """The folder of programs of a new environment with nothing but `wanted`."""
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([programs / "python", "-m", "pip", "install", "-q", *map(str, wanted)], check=True, env=clean())
    return programs


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` leaves in `dist`: it makes the wheel of the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "checkout"
    shutil.copytree(ROOT, source, ignore=_not_of_the_project)
    programs = environment(folder / "venv", "build")
    subprocess.run([programs / "python", "-m", "build", "--outdir", folder / "dist", source], check=True, env=clean())
    return folder / "dist"


def _not_of_the_project(folder: str, names: list[str]) -> set[str]:
    """What lies in a checkout but is no file of the project."""
    top = {".git", ".venv", "artifacts", "shared"} if Path(folder) == ROOT else set()
    return {name for name in names if name in top or name.endswith("__pycache__") or name.endswith("_cache")}


def wheel_and_sdist(built: Path) -> tuple[Path, Path]:
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    return wheel, sdist


def test_the_files_are_named_after_the_version(built: Path) -> None:
    wheel, sdist = wheel_and_sdist(built)
    assert wheel.name == f"vit_deploy-{vit_deploy.__version__}-py3-none-any.whl"
    assert sdist.name == f"vit_deploy-{vit_deploy.__version__}.tar.gz"


def test_the_wheel_holds_the_package_and_its_data(built: Path) -> None:
    wheel, _ = wheel_and_sdist(built)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("METADATA")]
    inside = {name.removeprefix("vit_deploy/") for name in names if name.startswith("vit_deploy/")}
    here = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    assert inside == {name for name in here if "__pycache__" not in name}
    assert set(DATA) <= inside
    assert {name.partition("/")[0] for name in names} == {
        "vit_deploy",
        f"vit_deploy-{vit_deploy.__version__}.dist-info",
    }
    assert "Requires-Python: >=3.11" in metadata and "License-Expression: Apache-2.0" in metadata
    assert "# vit-deploy" in metadata  # the README


def test_the_source_distribution_holds_what_it_takes_to_work_on_it(built: Path) -> None:
    _, sdist = wheel_and_sdist(built)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", ".ci/run")
    assert set(files) <= names
    assert {f"vit_deploy/{name}" for name in DATA} <= names
    assert {
        "tests/conftest.py",
        "tests/made_by_0_1/vit.keras",
        "samples/01_quick_start.py",
        "samples/ci/verify.yml",
    } <= names
    assert "tests/made_by_0_1/artifacts/onnx-fp32/model.onnx" in names
    assert {"benchmarks/__main__.py", "benchmarks/README.md", "docs/devices.md"} <= names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_installs_and_runs_with_the_base_dependencies_alone(kind: str, built: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", dict(zip(("wheel", "sdist"), wheel_and_sdist(built), strict=True))[kind])
    program = programs / "vit-deploy"

    def said(*command: str | Path) -> str:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env=clean())
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert vit_deploy.__version__ in said(program, "--version")
    help = said(program, "--help")
    assert all(command in help for command in ("export", "verify", "bench", "doctor"))
    assert "pico" in said(program, "export", "--help")
    found = json.loads(said(programs / "python", "-c", IMPORT_EVERYTHING))
    assert Path(found["file"]).is_relative_to(tmp_path)
    assert found["modules"] > 200
    # Leaves lack their engines, and what comes with these; nothing else lacks anything.
    assert {name.partition(".")[0] for name in found["lacking"].values()} <= {*ENGINES, "ml_dtypes"}
    assert 0 < len(found["lacking"]) < found["modules"] / 3
    refused = subprocess.run(
        [program, "export", "tiny", "--format", "onnx", "-o", "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=clean(),
    )
    assert refused.returncode == 2 and "vit-deploy[" in refused.stderr and "Traceback" not in refused.stderr
