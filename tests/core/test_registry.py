from __future__ import annotations

import ast
import importlib
import json
import math
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from vit_deploy.core import registry as registries
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError
from vit_deploy.runtimes.diagnosis import ONNX_RUNTIMES
from vit_deploy.runtimes.packages import admits

ROOT = Path(__file__).parents[2]
REGISTRIES = {
    "vit_deploy.checkpoints": ("CONTAINERS", "SOURCES"),
    "vit_deploy.checkpoints.writing": ("WRITERS", "DIALECTS"),
    "vit_deploy.checkpoints.hub": ("HUBS",),
    "vit_deploy.checkpoints.hub.publishing": ("PUBLISHERS",),
    "vit_deploy.text": ("TOKENIZERS", "CLEANERS"),
    "vit_deploy.runtimes": ("RUNTIMES",),
    "vit_deploy.runtimes.simulators": ("SIMULATORS",),
    "vit_deploy.verification.locate": ("TAPPERS",),
    "vit_deploy.performance.profilers": ("PROFILERS",),
    "vit_deploy.performance.report": ("WRITERS",),
    "vit_deploy.exporters": ("EXPORTERS", "COMPILERS"),
    "vit_deploy.exporters.npu": ("DEVICE_COMPILERS",),
    "vit_deploy.exporters.quantization": ("QUANTIZERS",),
    "vit_deploy.compression": ("METHODS",),
    "vit_deploy.data.embedding": ("OUTPUTS",),
    "vit_deploy.data.finding": ("READERS",),
    "vit_deploy.data.items": ("STORAGE",),
    "vit_deploy.data.spreading": ("CLUSTERS",),
}
ENTRIES = [
    pytest.param(getattr(importlib.import_module(module), table), name, id=f"{module}.{table}-{name}")
    for module, tables in REGISTRIES.items()
    for table in tables
    for name in getattr(importlib.import_module(module), table)
]


@pytest.fixture
def registry():
    return Registry(
        "shelf",
        {
            "there": Plugin("collections:OrderedDict"),
            "half": Plugin("collections:deque", extra="gpu", either=("no_such_module", "json")),
            "neither": Plugin("collections:deque", extra="gpu", needs=("json",), either=("no_such_module", "nor_this")),
            "absent": Plugin("no_such_module:Thing", extra="gpu", needs=("json", "no_such_module", "nor_this")),
        },
    )


def test_it_loads_what_a_name_stands_for(registry):
    from collections import OrderedDict

    assert registry.load("there") is OrderedDict


def test_it_reads_like_a_mapping_and_imports_nothing(registry):
    assert list(registry) == ["there", "half", "neither", "absent"] and len(registry) == 4
    assert "absent" in registry and "theer" not in registry and 3 not in registry
    assert registry["absent"].missing() == ("no_such_module", "nor_this")


def test_an_unknown_name_is_told_with_the_one_it_resembles_or_all_there_are(registry):
    for look_up in (registry.__getitem__, registry.check, registry.load):
        with pytest.raises(ConfigError) as caught:
            look_up("theer")
        assert str(caught.value) == "unknown shelf 'theer'\n  fix: did you mean 'there'?"
    with pytest.raises(ConfigError) as caught:
        registry["zzz"]
    assert caught.value.fix == "choose one of there, half, neither, absent"


def test_a_missing_library_is_told_with_the_extra_that_brings_it(registry):
    for ask in (registry.check, registry.load):
        with pytest.raises(MissingEngineError) as caught:
            ask("absent")
        assert caught.value.message == "the shelf 'absent' needs no_such_module, nor_this, which is not installed"
        assert caught.value.fix == 'pip install "vit-deploy[gpu]"'


def test_of_modules_of_which_one_is_enough_none_is_told_as_missing_where_one_is_there(registry):
    assert registry["half"].missing() == ()
    assert registry["neither"].missing() == ("no_such_module or nor_this",)
    with pytest.raises(MissingEngineError, match="needs no_such_module or nor_this, which is not installed"):
        registry.check("neither")


@pytest.mark.parametrize(("registry", "name"), ENTRIES)
def test_every_entry_points_to_something_that_is_there(registry, name):
    module, _, attribute = registry[name].target.partition(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file() and attribute
    if not registry[name].missing():
        assert callable(registry.load(name))


@pytest.mark.parametrize(("registry", "name"), ENTRIES)
def test_every_library_that_an_entry_needs_comes_with_an_extra_that_exists(registry, name):
    plugin = registry[name]
    assert bool(plugin.needs or plugin.either) == bool(plugin.extra)
    if plugin.extra:
        brought = " ".join(requirements(plugin.extra)).replace("-", "_")
        spellings = brought + " " + brought.replace("_", "")  # ethos-u-vela brings ethosu
        assert all(need in spellings for need in plugin.needs)
        assert not plugin.either or any(need in brought for need in plugin.either)


def requirements(extra):
    """What an extra installs, those that it takes in included."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = []
    for text in extras["optional-dependencies"][extra]:
        inner = re.fullmatch(r"vit-deploy\[(.+)\]", text)
        found += (
            [requirement for name in inner[1].split(",") for requirement in requirements(name)] if inner else [text]
        )
    return found


def test_the_fix_never_puts_a_second_onnxruntime_beside_the_one_for_gpus(monkeypatch):
    exporters = Registry("exporter", {"absent": Plugin("no_such_module:Thing", extra="cpu", needs=("no_such_module",))})
    for there, extra in (("onnxruntime-gpu", "export"), ("onnxruntime", "cpu")):

        def distribution(name, there=there):
            if name != there:
                raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(registries.metadata, "distribution", distribution)
        with pytest.raises(MissingEngineError) as caught:
            exporters.check("absent")
        assert caught.value.fix == f'pip install "vit-deploy[{extra}]"'


def names(extra):
    return {Requirement(text).name for text in requirements(extra)}


def test_exporting_and_gpu_timing_fit_into_one_environment():
    assert not names("export") & set(ONNX_RUNTIMES), "which ONNX Runtime is the user's choice"
    assert names("cpu") == names("export") | names("report") | names("hub") | names("text") | {"onnxruntime"}
    for extra in ("gpu", "gpu-cuda12", "tensorrt"):
        assert names(extra) & set(ONNX_RUNTIMES) == {"onnxruntime-gpu"}


def test_the_extras_of_gpus_ask_for_wheels_that_can_be_installed():
    def admitted(extra, version):
        (found,) = (
            requirement
            for requirement in map(Requirement, requirements(extra))
            if requirement.name == "onnxruntime-gpu"
        )
        return admits(found, version)

    cuda_13 = {"1.26.0": False, "1.27.0": False, "1.28.0": True, "1.31.1": True}
    assert {version: admitted("gpu", version) for version in cuda_13} == cuda_13
    cuda_12 = {"1.21.1": False, "1.22.0": True, "1.26.0": True, "1.27.0": False, "1.31.1": False}
    assert {version: admitted("gpu-cuda12", version) for version in cuda_12} == cuda_12
    for extra in ("gpu", "gpu-cuda12", "gpu-tf", "tensorrt", "tensorrt-rtx"):
        assert "nvidia-ml-py" in names(extra), "energy and GPU facts are read through it"


def test_every_registry_of_the_package_is_among_those_that_are_tested():
    found = {}
    for path in sorted((ROOT / "vit_deploy").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
                [name] = node.targets if isinstance(node, ast.Assign) else [node.target]
                if getattr(node.value.func, "id", None) == "Registry":
                    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
                    found.setdefault(module, []).append(name.id)
    assert found == {module: list(tables) for module, tables in REGISTRIES.items()}


def test_the_registries_are_read_without_any_engine():
    program = """
import json, sys
import vit_deploy.checkpoints, vit_deploy.exporters, vit_deploy.runtimes
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "h5py"} & set(json.loads(done.stdout))


def test_an_engine_that_would_crash_after_another_one_is_refused(monkeypatch):
    table = Registry("engine", {"late": Plugin("no_such_module:Thing", extra="cpu", needs=("tensorflow",))})
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", object())
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(EngineError, match=r"tensorflow crashes in a process that has loaded onnxruntime_qnn before it"):
        table.load("late")


def test_an_entry_can_be_added_or_replaced_for_a_while():
    table = Registry("thing", {"first": Plugin("json:dumps"), "second": Plugin("json:loads")})
    for name in ("first", "third"):
        with pytest.raises(ZeroDivisionError), table.with_entry(name, Plugin("math:sqrt")):
            assert table.load(name) is math.sqrt and table.load("second") is json.loads
            assert list(table) == list(dict.fromkeys(["first", "second", name]))
            raise ZeroDivisionError
        assert list(table) == ["first", "second"] and table.load("first") is json.dumps
