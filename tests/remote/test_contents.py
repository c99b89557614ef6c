"""What travels to a device is what is imported there, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vit_deploy.core.child_processes import python
from vit_deploy.core.format import GROUP, Format, RuntimeEntry
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ConfigError
from vit_deploy.remote.contents import (
    APART,
    PACKAGE,
    STARTED,
    Asked,
    Use,
    engines,
    imported_by,
    is_among,
    left_at_home,
    modules_on_device,
    source_of,
    use_of,
)
from vit_deploy.remote.packing import ROOT, pack
from vit_deploy.remote.work import COMMANDS
from vit_deploy.runtimes import RUNTIMES

PACKABLE = ("onnx", "tflite", "savedmodel", "tensorrt")
# Modules that name all others: what a workstation gets of the package's attributes, and of the formats' records.
QUOTES_ALL = ("vit_deploy", "vit_deploy.core.options", "vit_deploy.core.format_table")
WORKSTATION = {"cli", "api", "compression", "model", "exporters", "checkpoints"}


# What can be asked of archives, from all to the least.
ASKED = (
    Asked(),
    Asked(("verify", "bench"), on_gpus=False, profiles=False),
    *(Asked((command,), on_gpus=False, profiles=False, looks_for_batch=False) for command in COMMANDS),
)
USES = [
    *(Use((format,), asked) for format in PACKABLE for asked in ASKED),
    Use(PACKABLE, with_images=True, has_sizes=True, has_outputs=True, has_signatures=True, has_rotary=True),
]


@pytest.mark.parametrize("use", USES, ids=str)
def test_every_module_that_is_imported_there_travels(use: Use) -> None:
    there, left = modules_on_device(use), left_at_home(use)
    assert {name for name in (*STARTED, *engines(use)) if not is_among(name, left)} <= set(there)
    for name in there:
        missing = {module for module in imported_by(name) if not is_among(module, left)} - set(there)
        assert missing == set() or name == "vit_deploy", name
    assert {name.split(".")[1] for name in there if "." in name} & WORKSTATION == set()


@pytest.mark.parametrize("use", USES, ids=str)
def test_what_stays_at_home_is_imported_by_no_module_but_in_its_functions(use: Use) -> None:
    there, left = modules_on_device(use), left_at_home(use)
    for name in there:
        assert [module for module in imported_by(name, in_functions=False) if is_among(module, left)] == [], name


def test_every_module_that_is_apart_is_imported_by_one_that_travels() -> None:
    there = modules_on_device(USES[-1])
    inside = {module for name in there for module in imported_by(name)}
    assert [apart.name for apart in APART if not any(is_among(module, [apart.name]) for module in inside)] == []


def test_modules_that_are_named_in_quotes_travel_too_or_belong_to_other_formats() -> None:
    """Registries and workers are reached by name, which no import shows."""
    for format in PACKABLE:
        there = modules_on_device(Use((format,)))
        others = engines(Use((*{*PACKABLE, "keras"} - {format},))) - engines(Use((format,)))
        for name, path in there.items():
            quoted = {
                node.value.partition(":")[0]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.fullmatch(r"vit_deploy(\.\w+)+(:\w+)?", node.value)
            }
            if name not in QUOTES_ALL:
                assert quoted - set(there) - others - {GROUP} == set(), name  # entry points have a group of such a name


def test_of_a_formats_record_a_device_uses_what_travels_with_its_engines() -> None:
    at_home = {field.name for field in dataclasses.fields(Format) if "Plugin" in str(field.type)}
    at_home -= {"largest_batch"}  # which travels
    assert {"exporter", "read_graph", "recipes"} <= at_home
    for name, path in modules_on_device(Use(PACKABLE)).items():
        if name not in {*QUOTES_ALL, "vit_deploy.core.format", "vit_deploy.formats.graph"}:
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            assert not {node.attr for node in nodes if isinstance(node, ast.Attribute)} & at_home, name


def test_what_another_distribution_runs_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = RuntimeEntry("elsewhere", Plugin("elsewhere.engine:Engine"))
    record = Format("other", "Other", "a file", "file", ("model",), (entry,))
    monkeypatch.setitem(FORMATS._records, "other", record)
    monkeypatch.setitem(RUNTIMES._plugins, "elsewhere", entry.engine)
    with pytest.raises(ConfigError, match=r"in elsewhere\.engine, of which an archive holds nothing"):
        modules_on_device(Use(("other",)))


def test_every_format_brings_its_own_engines_alone() -> None:
    tflite = set(modules_on_device(Use(("tflite",))))
    assert "vit_deploy.runtimes.litert" in tflite
    assert not {"vit_deploy.runtimes.ort.runtime", "vit_deploy.runtimes.openvino"} & tflite
    both = set(modules_on_device(Use(("tflite", "onnx"))))
    assert both == tflite | set(modules_on_device(Use(("onnx",))))
    for format, record in FORMATS.items():
        elsewhere = [runtime.name for runtime in record.runtimes if not runtime.named_only]
        assert {RUNTIMES[name].target.partition(":")[0] for name in elsewhere} <= engines(Use((format,)))


def test_an_engine_that_is_not_named_stays_at_home() -> None:
    there = modules_on_device(Use(("onnx",), Asked(runtimes=("openvino",))))
    assert "vit_deploy.runtimes.openvino" in there
    assert not {name for name in there if name.startswith("vit_deploy.runtimes.ort")}


def test_the_archive_holds_these_files_and_no_others(bundles: dict[str, Path], tmp_path: Path) -> None:
    pack([bundles["tflite"]], tmp_path / "models.tar.gz")
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        names = [name.removeprefix(f"{ROOT}/") for name in archive.getnames()]
    packed = {name for name in names if name.startswith("vit_deploy/")}
    expected = modules_on_device(use_of([read_artifact(bundles["tflite"])])).values()
    assert packed == {f"vit_deploy/{path.relative_to(PACKAGE).as_posix()}" for path in expected}
    assert len(packed) < len(list(PACKAGE.rglob("*.py"))) / 6


def test_the_modules_import_one_another_where_there_is_nothing_else(tmp_path: Path) -> None:
    """Each is imported from a copy that has no other, without engines."""
    use = Use(("onnx", "tflite"))
    there = modules_on_device(use)
    for path in there.values():
        copy = tmp_path / "vit_deploy" / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    light = [name for name in there if name not in engines(use) and ".ort." not in name]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import importlib\n" + "".join(
        f"importlib.import_module({name!r})\n" for name in light
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_imports_are_found_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vit_deploy"
    (package / "sub").mkdir(parents=True)
    for name in ("__init__", "a", "b", "c", "d", "e", "sub/__init__"):
        (package / f"{name}.py").touch()
    (package / "sub" / "top.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import vit_deploy.a as short\n"
        "if TYPE_CHECKING:\n    from vit_deploy import e\n"
        "else:\n    from vit_deploy.b import name\n"
        "class Of:\n    from .. import c\n"
        "async def call():\n    import vit_deploy.d, json\n"
    )
    monkeypatch.setattr("vit_deploy.remote.contents.PACKAGE", package)
    every = {"vit_deploy.a", "vit_deploy.b", "vit_deploy.c", "vit_deploy.d"}
    assert imported_by("vit_deploy.sub.top") == every
    assert imported_by("vit_deploy.sub.top", in_functions=False) == every - {"vit_deploy.d"}
    with pytest.raises(LookupError, match=r"vit_deploy\.none is no module"):
        source_of("vit_deploy.none")


def test_the_workers_that_are_started_are_those_that_travel() -> None:
    from vit_deploy.performance import process, profilers

    started = {python("-m", name)[-1] for name in STARTED}
    assert {process.WORKER[-1], profilers.WORKER[-1]} < started
