"""The wheel and the source distribution hold what they have to, and install and run where there is nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import zipfile
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import pytest
from test_boundaries import ENGINES

import vit_deploy
from tests.environments import clean, environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vit_deploy"
DATA = (
    "checkpoints/timm/architectures.csv",
    "core/artifact.schema.json",
    "performance/report/page.css",
    "performance/report/page.js",
    "py.typed",
    "runtimes/web/onnx.js",
    "runtimes/web/page.html",
    "runtimes/web/page.js",
    "runtimes/web/tflite.js",
    "web/demo.css",
    "web/demo.html",
    "web/licences/Apache-2.0.txt",
    "web/preprocess.mjs",
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


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m build` leaves in `dist`: it makes the wheel of the source distribution."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "checkout"
    shutil.copytree(ROOT, source, ignore=_not_of_the_project)
    programs = environment(folder / "venv", "build", "twine", "readme_renderer[md]")
    subprocess.run([programs / "python", "-m", "build", "--outdir", folder / "dist", source], check=True, env=clean())
    return folder / "dist"


RENDER = """
import email, sys
from readme_renderer import markdown
sys.stdout.reconfigure(encoding="utf-8")
metadata = email.message_from_binary_file(sys.stdin.buffer)
assert metadata.get_content_type() == "text/plain" and metadata["Description-Content-Type"] == "text/markdown"
print(markdown.render(metadata.get_payload(decode=True).decode()))
"""


class Page(HTMLParser):
    """What a page of HTML has for links: their targets with their text, and headings by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.headings: dict[str, str] = {}
        self.text = ""
        self._inside: list[tuple[str, str]] = []  # element, and its href or id
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag == "a":
            self._inside.append((tag, named.get("href") or ""))
            self.links.append((self._inside[-1][1], ""))
        elif "id" in named:
            self._inside.append((tag, named["id"] or ""))
            self.headings[self._inside[-1][1]] = ""

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1][0] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside:
            element, name = self._inside[-1]
            if element == "a":
                self.links[-1] = (name, self.links[-1][1] + data)
            else:
                self.headings[name] += data


@pytest.fixture(scope="module")
def rendered(built: Path) -> Page:
    """The description as PyPI shows it, by PyPI's own renderer."""
    wheel, _ = wheel_and_sdist(built)
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [archive.read(name) for name in archive.namelist() if name.endswith("METADATA")]
    done = subprocess.run(
        [builder(built), "-c", RENDER], input=metadata, stdout=subprocess.PIPE, check=True, env=clean()
    )
    return Page(done.stdout.decode())


def builder(built: Path) -> Path:
    """The Python that has built the distributions."""
    return built.parent / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"


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


def test_the_metadata_has_addresses_that_follow_from_the_name(built: Path) -> None:
    wheel, _ = wheel_and_sdist(built)
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA")]
    addresses = re.findall(r"^Project-URL: ([^,]+), (\S+)$", metadata, re.MULTILINE)
    assert {name for name, _ in addresses} == {"Homepage", "Release history"}
    assert all(address.startswith("https://pypi.org/project/vit-deploy/") for _, address in addresses)


def test_twine_finds_nothing_to_say(built: Path) -> None:
    command = [builder(built), "-m", "twine", "check", "--strict", *wheel_and_sdist(built)]
    subprocess.run(list(map(str, command)), check=True, env=clean())


def test_every_link_of_the_description_leads_somewhere_on_the_page_of_pypi(rendered: Page) -> None:
    assert len([text for _, text in rendered.links if text]) > 40
    here = {f"#{name}" for name in rendered.headings}
    assert [link for link, _ in rendered.links if not link.startswith("https://") and link not in here] == []


def test_links_between_the_pages_lead_to_the_headings_they_name(rendered: Page) -> None:
    reached = {text: rendered.headings.get(link.removeprefix("#")) for link, text in rendered.links if text}
    assert reached["More names"] == "Models by name"
    assert reached["Benchmarks"] == "Benchmarks"
    assert reached["a look"] == "Processors without VNNI"
    assert reached["Recipes"] == "Recipes for devices"


def test_the_source_distribution_has_what_its_description_names(built: Path, rendered: Page) -> None:
    _, sdist = wheel_and_sdist(built)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    named = re.findall(r"\((?:vit_deploy|tests|samples|benchmarks)/[^\s)]*\)", rendered.text)
    assert named and {name.strip("()") for name in named} <= names | folders


def test_the_source_distribution_holds_what_it_takes_to_work_on_it(built: Path) -> None:
    _, sdist = wheel_and_sdist(built)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "hatch_build.py", ".ci/run")
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
