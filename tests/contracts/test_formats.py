"""Each format's record says the same as the code that it names."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
from pathlib import Path

import pytest

import vit_deploy
from vit_deploy import cli
from vit_deploy.core.format import FP32, Format, RuntimeEntry, Target
from vit_deploy.core.format_table import EXPORTED_BY_DEFAULT, FORMATS, SERVED_BY_DEFAULT
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import COMPILERS, EXPORTERS
from vit_deploy.exporters.plan import DYNAMIC, check_exists, plan, usual_formats
from vit_deploy.exporters.quantization import QUANTIZERS, QuantizeOptions
from vit_deploy.exporters.quantization.recipes import recipes_of
from vit_deploy.exporters.tensorrt.triton import Backend
from vit_deploy.formats.detect import format_of
from vit_deploy.formats.snippet import Lines
from vit_deploy.formats.tensorrt_plan import MAGIC, PROVIDERS
from vit_deploy.performance.profilers import PROFILERS
from vit_deploy.runtimes import GPU_PROVIDERS, RUNTIMES
from vit_deploy.verification.locate import TAPPERS
from vit_deploy.verification.tolerances import DEFAULTS

OF_ARTIFACTS = list(FORMATS.of_artifacts())
METHODS = {"exporter": "write", "compiler": "write", "quantizer": "write", "tapper": "open", "engine": "open"}
VALUES = {"snippet": Lines, "triton": Backend}


def plugins_of(record):
    """Everything that a record of a format or of a runtime names, by the field."""
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        named = value.values() if isinstance(value, dict) else [value]
        yield from ((field.name, each) for each in named if isinstance(each, Plugin))


NAMED = [
    pytest.param(field, plugin, id=f"{record.name}-{field}-{plugin.target.partition(':')[2]}")
    for record in (*FORMATS.values(), *FORMATS.runtimes().values())
    for field, plugin in plugins_of(record)
]


@pytest.mark.parametrize(("field", "plugin"), NAMED)
def test_what_a_record_names_is_there(field, plugin):
    module, _, attribute = plugin.target.partition(":")
    assert attribute and importlib.util.find_spec(module) is not None
    if plugin.missing():
        pytest.skip(f"needs {', '.join(plugin.missing())}")
    found = plugin.load()
    if field in VALUES:
        assert isinstance(found, VALUES[field])
    elif field == "recipes":
        assert found and all(recipe.precision == name for name, recipe in found.items())
    else:
        assert callable(getattr(found, METHODS.get(field, "__call__")))


def test_the_registries_hold_what_the_records_name():
    for registry, field in ((EXPORTERS, "exporter"), (COMPILERS, "compiler"), (QUANTIZERS, "quantizer")):
        assert dict(registry) == {name: plugin for name, entry in FORMATS.items() if (plugin := getattr(entry, field))}
    assert dict(TAPPERS) == {name: entry.tapper for name, entry in FORMATS.items() if entry.tapper}
    assert dict(RUNTIMES) == {
        runtime.name: runtime.engine for record in FORMATS.values() for runtime in record.runtimes
    }
    assert dict(PROFILERS) == {name: value.profiler for name, value in FORMATS.runtimes().items() if value.profiler}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_run_and_either_made_or_taken_as_it_is(name):
    record = FORMATS[name]
    assert record.name == name and record.runtimes and record.title and record.noun and record.kind
    assert bool(record.exporter) + bool(record.compiler) == bool(record.model_files) == bool(record.precisions)
    assert bool(record.compiler) == bool(record.made_of)
    assert not record.made_of or FORMATS[record.made_of].exporter is not None
    if record.model_files:
        check_exists(name)
        assert record.read_graph is not None


@pytest.mark.parametrize("name", OF_ARTIFACTS)
def test_every_precision_is_made_by_a_recipe_and_has_a_tolerance(name):
    record = FORMATS[name]
    assert set(record.precisions) <= set(Target)
    for target, precisions in record.precisions.items():
        assert precisions[0] == FP32 and len(set(precisions)) == len(precisions)
        assert set(precisions) <= {*DEFAULTS, FP32}
        if record.exporter:
            assert set(precisions) == {FP32, *recipes_of(name, target)}
        else:
            assert precisions == FORMATS[record.made_of].precisions[target]
    assert bool(record.quantizer) == bool(record.recipes)
    assert {*record.rebalanced, *record.saturating} <= set(record.every_precision)
    assert record.quantization_options <= {field.name for field in dataclasses.fields(QuantizeOptions)}


@pytest.mark.parametrize("name", OF_ARTIFACTS)
def test_a_file_is_known_by_its_bytes_its_suffix_or_what_is_in_its_folder(name, tmp_path):
    record = FORMATS[name]
    paths = []
    for index, (place, known) in enumerate(record.magic):
        paths.append(tmp_path / f"{index}.unknown")
        paths[-1].write_bytes(b"\0" * place + known)
    for suffix in record.suffixes:
        paths.append(tmp_path / f"file{suffix}")
        paths[-1].write_bytes(b"nothing that is known")
    if record.folder_file:
        paths.append(tmp_path / record.model_files[0])
        paths[-1].mkdir()
        (paths[-1] / record.folder_file).touch()
    assert paths and all(format_of(path) is record for path in paths)
    model = Path(record.model_files[0])
    assert model.suffix in record.suffixes if record.suffixes else record.folder_file
    others = [entry for entry in FORMATS.values() if entry is not record]
    assert not {suffix for other in others for suffix in other.suffixes} & set(record.suffixes)


def test_files_of_no_format_are_none(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK\3\4")
    for path in (tmp_path / "weights.npz", tmp_path, tmp_path / "not there"):
        assert format_of(path) is None


@pytest.mark.parametrize("name", OF_ARTIFACTS)
def test_a_plan_follows_the_record(name):
    record = FORMATS[name]
    if any(plugin.missing() for plugin in (record.exporter or record.compiler, record.runtimes[0].engine)):
        pytest.skip("its engine is not installed")
    (job,), skipped = plan([name], [FP32])
    assert skipped == []
    assert job.options.batch == (1 if record.has_fixed_batch else None)
    assert job.options.target in record.precisions
    for options, has_effect in (({"opset": 18}, record.has_opset), ({"layout": "nchw"}, record.has_layout)):
        if has_effect:
            ((job, *_), _) = plan([name], [FP32], **options)
            assert {key: getattr(job.options, key) for key in options} == options
        else:
            with pytest.raises(ConfigError, match="shape ONNX files"):
                plan([name], [FP32], **options)
    if record.has_fixed_batch:
        with pytest.raises(ConfigError, match=f"{record.title} files are made for a fixed batch"):
            plan([name], [FP32], batch=DYNAMIC)


@pytest.mark.parametrize("name", FORMATS.runtimes())
def test_a_runtime_says_what_executes_it_and_how_its_operators_are_timed(name):
    entry = FORMATS.runtimes()[name]
    assert entry.name == name and entry.providers and len(set(entry.providers)) == len(entry.providers)
    if entry.profiler:
        assert entry.profiled_on in entry.providers and not entry.not_profiled
    else:
        assert entry.not_profiled and not entry.profiled_on
    assert not entry.prefers_gpus or set(entry.providers) & set(GPU_PROVIDERS)


def test_plans_are_known_by_the_names_and_bytes_of_both_flavours():
    record = FORMATS["tensorrt"]
    assert record.magic == tuple((0, known) for known in MAGIC)
    assert record.runtimes[0].providers == (*PROVIDERS.values(), "cuda")
    assert {*PROVIDERS.values()} < {*GPU_PROVIDERS}


def test_what_is_made_where_no_format_is_named_can_be_made():
    assert set(EXPORTED_BY_DEFAULT) | set(SERVED_BY_DEFAULT) <= set(EXPORTERS)
    assert all(FORMATS[name].triton for name in SERVED_BY_DEFAULT)
    assert usual_formats([FP32], "cpu") == list(EXPORTED_BY_DEFAULT)
    assert usual_formats([FP32], "cuda") == usual_formats([FP32], "cpu", served=True) == ["onnx"]
    assert usual_formats(["int8-full"], "cpu") == ["tflite"]


def test_help_names_every_format_that_can_be_made(capsys):
    assert cli.run(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    precisions = {precision for entry in FORMATS.values() for precision in entry.every_precision}
    assert all(name in shown for name in (*OF_ARTIFACTS, *precisions))


def test_no_module_asks_a_format_for_its_name():
    found = []
    for path in Path(vit_deploy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and {"format"} & {word for side in sides(node) for word in names_in(side)}:
                found += [f"{path}:{node.lineno}" for side in sides(node) if constants_in(side) & set(FORMATS)]
    assert found == []


def sides(comparison):
    return [comparison.left, *comparison.comparators]


def names_in(node):
    """The last part of each name in an expression, as `format` of `artifact.format`."""
    return {getattr(part, "attr", getattr(part, "id", None)) for part in ast.walk(node)}


def constants_in(node):
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_records_cannot_be_changed():
    for record, field in ((FORMATS["onnx"], "title"), (FORMATS.runtimes()["litert"], "name")):
        assert isinstance(record, Format | RuntimeEntry)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field, "other")
