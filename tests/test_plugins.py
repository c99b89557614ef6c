from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from vit_deploy.checkpoints import CONTAINERS, SOURCES, WRITERS
from vit_deploy.errors import ConfigError, MissingEngineError
from vit_deploy.exporters import EXPORTERS
from vit_deploy.exporters.stage import PRECISIONS
from vit_deploy.plugins import Plugin, Registry
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT

REGISTRIES = (CONTAINERS, SOURCES, WRITERS, EXPORTERS, RUNTIMES)
ENTRIES = [(registry, name) for registry in REGISTRIES for name in registry]


@pytest.fixture
def registry():
    return Registry(
        "shelf",
        {
            "there": Plugin("collections:OrderedDict"),
            "absent": Plugin("no_such_module:Thing", extra="gpu", needs=("json", "no_such_module", "nor_this")),
        },
    )


def test_it_loads_what_a_name_stands_for(registry):
    from collections import OrderedDict

    assert registry.load("there") is OrderedDict


def test_it_reads_like_a_mapping_and_imports_nothing(registry):
    assert list(registry) == ["there", "absent"] and len(registry) == 2
    assert "absent" in registry and "theer" not in registry and 3 not in registry
    assert registry["absent"].missing() == ("no_such_module", "nor_this")


def test_an_unknown_name_is_told_with_the_one_it_resembles_or_all_there_are(registry):
    for look_up in (registry.__getitem__, registry.check, registry.load):
        with pytest.raises(ConfigError) as caught:
            look_up("theer")
        assert str(caught.value) == "unknown shelf 'theer'\n  fix: did you mean 'there'?"
    with pytest.raises(ConfigError) as caught:
        registry["zzz"]
    assert caught.value.fix == "choose one of there, absent"


def test_a_missing_library_is_told_with_the_extra_that_brings_it(registry):
    for ask in (registry.check, registry.load):
        with pytest.raises(MissingEngineError) as caught:
            ask("absent")
        assert caught.value.message == "the shelf 'absent' needs no_such_module, nor_this, which is not installed"
        assert caught.value.fix == 'pip install "vit-deploy[gpu]"'


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=lambda each: getattr(each, "kind", each))
def test_every_entry_points_to_something_that_is_there(registry, name):
    module, _, attribute = registry[name].target.partition(":")
    path = Path(__file__).parent.parent.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file() and attribute
    if not registry[name].missing():
        assert callable(registry.load(name))


@pytest.mark.parametrize(("registry", "name"), ENTRIES, ids=lambda each: getattr(each, "kind", each))
def test_every_library_that_an_entry_needs_comes_with_an_extra_that_exists(registry, name):
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    plugin = registry[name]
    assert bool(plugin.needs) == bool(plugin.extra)
    if plugin.needs:
        brought = " ".join(extras[plugin.extra]).replace("-", "_")
        assert all(need in brought for need in plugin.needs)


def test_every_format_has_precisions_and_a_runtime_to_prove_it():
    assert set(PRECISIONS) == set(EXPORTERS)
    assert set(EXPORTERS) | {"keras"} == set(RUNTIMES_OF_FORMAT)
    assert {name for names in RUNTIMES_OF_FORMAT.values() for name in names} == set(RUNTIMES)
    assert all(PRECISIONS.values()) and all(RUNTIMES_OF_FORMAT.values())


def test_the_registries_are_read_without_any_engine():
    program = """
import json, sys
import vit_deploy.checkpoints, vit_deploy.exporters, vit_deploy.runtimes
print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert", "h5py"} & set(json.loads(done.stdout))
