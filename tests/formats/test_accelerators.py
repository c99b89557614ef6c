"""Which operators accelerators leave to the CPU: of the files that are made here, and of every reason that there is."""

from __future__ import annotations

import json
import re
import struct
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vit_deploy.core.compiled import Fallback
from vit_deploy.core.hexagon import CHIPS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ArtifactError, EngineError
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.formats import accelerator_rules as rules
from vit_deploy.formats import vela
from vit_deploy.formats.accelerators import ACCELERATORS, DATA, fallbacks, verdict, verdicts
from vit_deploy.formats.inspect import inspect
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.flatbuffer import Table
from vit_deploy.formats.tflite.names import OPERATORS
from vit_deploy.formats.tflite.operators import read_steps


@pytest.fixture(scope="module")
def files(bundles, tmp_path_factory):
    source = read_artifact(bundles["tflite"])
    options = QuantizeOptions(measure_speed=False)
    made = quantize(source, tmp_path_factory.mktemp("made"), ["int8-full", "int16x8"], options)
    return {result.artifact.precision: result.artifact.model_path for result in made.results} | {
        "fp32": source.model_path
    }


def reasons(path, device):
    return {fallback.operator: (fallback.count, fallback.reason) for fallback in fallbacks(path, ACCELERATORS[device])}


def test_of_an_integer_file_only_what_the_device_lacks_falls_back(files):  # the small model has two blocks
    for device in ("ethos-u", "ethos-u85", "hexagon", "hexagon-v68"):
        assert reasons(files["int8-full"], device) == {}


def test_the_edge_tpu_takes_rows_one_at_a_time_and_eight_bits_alone(files):
    found = reasons(files["int8-full"], "coral")
    assert found.pop("QUANTIZE")[1] == "computes in int16"
    assert found == {
        "FULLY_CONNECTED": (
            6 + 2,
            "its output has more than one row",
        ),  # the last block needs one row of all but keys and values
        "BATCH_MATMUL": (4, "no such operator"),
        "SOFTMAX": (2, "computes in int16"),
        "GELU": (2, "no such operator"),
        "CONCATENATION": (1, "joins a constant"),  # the class token
    }


def test_a_float_file_falls_back_as_a_whole(files):
    operators = inspect(files["fp32"]).graph.operators
    for device in ACCELERATORS.values():
        if device.key == "hexagon":
            continue
        found = {fallback.operator: fallback.count for fallback in fallbacks(files["fp32"], device)}
        assert found == dict(operators)
        assert all(fallback.reason == "computes in float32" for fallback in fallbacks(files["fp32"], device))


def test_hexagon_computes_in_floats_since_its_69th_version(files):
    assert reasons(files["fp32"], "hexagon") == {}
    assert {reason for _, reason in reasons(files["fp32"], "hexagon-v68").values()} == {"computes in float32"}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_the_rules_of_each_generation_say_whether_it_computes_in_floats(chip):
    of_generation = f"hexagon-v{chip.hexagon}"
    rules = ACCELERATORS[of_generation if of_generation in ACCELERATORS else "hexagon"]
    assert ("float32" in rules.activations) is chip.has_floats
    assert f"v{chip.hexagon}" in rules.name or chip.hexagon >= int(re.search(r"since v(\d+)", rules.name)[1])


def test_hexagon_multiplies_no_floats_with_integers_in_a_convolution(bundles, tmp_path):
    [made] = quantize(
        read_artifact(bundles["tflite"]), tmp_path, ["int8"], QuantizeOptions(measure_speed=False)
    ).results
    assert reasons(made.artifact.model_path, "hexagon") == {"CONV_2D": (1, "multiplies float32 with int8")}


def test_sixteen_bits_are_for_the_device_that_has_them(files):
    assert reasons(files["int16x8"], "coral")["FULLY_CONNECTED"][1] == "computes in int16"
    for device in ("ethos-u", "ethos-u85", "hexagon-v68"):
        found = reasons(files["int16x8"], device)
        assert "FULLY_CONNECTED" not in found
        assert found["SOFTMAX"][1] == found["QUANTIZE"][1] == "computes in float32"


def test_inspect_lists_them_and_has_none_for_other_formats(files, bundles):
    found, told = inspect(files["int8-full"]).to_dict(), verdicts(files["int8-full"])
    assert found["accelerators"] == {key: [vars(entry) for entry in one.left] for key, one in told.items()}
    assert found["accelerators_by"] == {key: one.source for key, one in told.items()}
    assert found["accelerators_by"]["coral"]["by"] == "document"
    assert inspect(bundles["tflite"]).to_dict()["accelerators"]["coral"]
    assert inspect(bundles["onnx"]).to_dict()["accelerators"] is None


def test_what_is_no_tflite_file_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="is not a TFLite file"):
        fallbacks(tmp_path / "model.tflite", ACCELERATORS["coral"])


def test_rules_are_data_with_the_compiler_its_version_and_the_day(files):
    for key, record in json.loads(DATA.read_text(encoding="utf-8")).items():
        assert record["tool"] and record["version"] and record["source"], key
        date.fromisoformat(record["checked"])
        told = verdict(files["fp32"], ACCELERATORS[key])
        assert told.source == {
            "tool": record["tool"], "version": record["version"], "by": "document", "checked": record["checked"]
        }  # fmt: skip
    with pytest.raises(KeyError):
        rules.named("no_such_rule")


def test_the_compilers_own_word_counts_where_it_is_installed(files, monkeypatch):
    said = (Fallback("MEAN", 5, "it will not"),)
    monkeypatch.setattr(vela, "is_installed", lambda: True)
    monkeypatch.setattr(vela, "compile_file", lambda path, target: vela.VelaFile("9.9", b"", 75, said, {}))
    told = verdict(files["int8-full"], ACCELERATORS["ethos-u"])
    assert told.left == said and told.source == {"tool": "Vela", "version": "9.9", "by": "compiler"}
    assert verdict(files["int8-full"], ACCELERATORS["coral"]).source["by"] == "document"

    def refuse(path, target):
        raise EngineError("it is too new")

    monkeypatch.setattr(vela, "compile_file", refuse)
    assert verdict(files["int8-full"], ACCELERATORS["ethos-u"]).source["by"] == "document"


@pytest.mark.parametrize("device", ["ethos-u", "ethos-u85"])
@pytest.mark.parametrize("precision", ["int8-full", "int16x8"])
def test_the_rules_say_what_the_compiler_says(files, device, precision):
    pytest.importorskip("ethosu", reason="needs ethos-u-vela")
    told = verdict(files[precision], ACCELERATORS[device])
    assert told.source["by"] == "compiler"
    by_rules = {entry.operator: entry.count for entry in fallbacks(files[precision], ACCELERATORS[device])}
    assert by_rules == {entry.operator: entry.count for entry in told.left}


@pytest.mark.parametrize("device", ["ethos-u", "ethos-u85"])
def test_the_operators_of_a_device_are_those_that_the_compiler_lists(device):
    regor = pytest.importorskip("ethosu.regor", reason="needs ethos-u-vela")
    listed = regor.tflite_operator_constraints({"ethos-u": "EthosU55", "ethos-u85": "EthosU85"}[device])
    assert {name.replace("ARGMAX", "ARG_MAX") for name in listed} == ACCELERATORS[device].operators


@pytest.mark.parametrize("device", ACCELERATORS)
def test_every_operator_of_a_device_is_one_of_the_schema(device):
    known = ACCELERATORS[device].operators
    assert known <= set(OPERATORS) and set(ACCELERATORS[device].limits) <= known
    assert not known & {"CUSTOM", "WHILE", "IF"}


def test_sizes_that_are_open_are_read_from_the_file(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Doubled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 3), tf.float32)])
        def __call__(self, x):
            return tf.nn.relu(x + 1.0)

    module = Doubled()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    (tmp_path / "open.tflite").write_bytes(converter.convert())
    with opened(tmp_path / "open.tflite") as model:
        (step,) = read_steps(model)
        assert rules.fixed_sizes(step) == "its sizes are open"
        assert [input.is_constant for input in step.inputs] == [False, True]
        assert step.inputs[1].values().tolist() == [1.0]


def fields(**numbers: int) -> Table:
    """A table of six numbers, those named by their position, zeros, and the schema's default of dilations."""
    values = [numbers.get(f"f{index}", 0) for index in range(4)]
    values += [numbers.get(f"f{index}", 1) for index in (4, 5)]
    vtable = struct.pack("<8H", 16, 28, 4, 8, 12, 16, 20, 24)
    return Table(vtable + struct.pack("<i6i", len(vtable), *values), len(vtable))


def tensor(*shape: int, dtype: str = "int8", values: Any = None, zero_point: int = 0, is_open: bool = False) -> Any:
    content = np.array([] if values is None else values)
    return SimpleNamespace(
        dtype=dtype,
        shape=shape,
        is_open=is_open,
        is_constant=values is not None,
        zero_point=zero_point,
        values=lambda: content,
    )


def step(*inputs: Any, output: Any = None, options: Any = None, kind: str = "ADD") -> Any:
    outputs = (inputs[0] if output is None else output,)
    return SimpleNamespace(kind=kind, inputs=inputs, outputs=outputs, options=options)


def order(*axes: int) -> Any:
    return tensor(len(axes), dtype="int32", values=axes)


ROWS = tensor(1, 7, 12)
CASES = {
    "fixed sizes": (rules.fixed_sizes, step(ROWS), step(tensor(1, 7, is_open=True))),
    "four dimensions": (rules.dimensions(4), step(tensor(1, 2, 3, 4)), step(tensor(1, 2, 3, 4, 5))),
    "inner dimensions": (rules.three_inner_dimensions, step(tensor(1, 2, 3, 4)), step(tensor(2, 1, 3, 4))),
    "a batch": (rules.one_image("ADD"), step(tensor(2, 1, 3, 4)), step(tensor(2, 1, 3, 4), kind="MUL")),
    "a row": (rules.one_row, step(ROWS, output=tensor(1, 1, 5)), step(ROWS)),
    "rows of a softmax": (rules.short_row, step(tensor(1, 16_000)), step(tensor(2, 8))),
    "length of a softmax": (rules.short_row, step(tensor(1, 16_000)), step(tensor(1, 16_001))),
    "zeros": (
        rules.joins_no_constant,
        step(ROWS, tensor(1, 1, 2, values=[-5, -5], zero_point=-5)),
        step(ROWS, tensor(1, 1, 2, values=[-5, 0], zero_point=-5)),
    ),
    "three joined": (
        rules.joins_no_constant,
        step(ROWS, ROWS, ROWS),
        step(ROWS, ROWS, tensor(1, 1, 2, values=[0, 0])),
    ),
    "channels by four": (rules.channels_by_four, step(ROWS, order(-1)), step(tensor(1, 8, 10), order(2))),
    "columns, any": (rules.channels_by_four, step(tensor(1, 7, 10), order(1)), step(tensor(1, 7, 10), order(1, 2))),
    "slice": (
        rules.plain_slice,
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields(f4=0)),
        step(ROWS, ROWS, ROWS, order(1, 2, 1), options=fields(f4=0)),
    ),
    "new axes": (
        rules.plain_slice,
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields(f4=1)),
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields(f3=1, f4=0)),
    ),
    "strides": (
        rules.wide_strides_unpadded,
        step(tensor(1, 8, 12, 3), options=fields(f0=1, f1=4, f2=8)),
        step(tensor(1, 8, 12, 3), options=fields(f0=0, f1=3, f2=4)),
    ),
    "small strides": (
        rules.wide_strides_unpadded,
        step(tensor(1, 8, 12, 3), options=fields(f0=0, f1=3, f2=3)),
        step(tensor(1, 8, 12, 3), options=fields(f0=1, f1=3, f2=4, f4=2)),
    ),
    "mean": (rules.mean_of_a_plane, step(ROWS, order(2)), step(tensor(2, 7, 12), order(2))),
    "mean of rows": (rules.mean_of_a_plane, step(tensor(2, 7, 12), order(1)), step(tensor(4097), order(0))),
    "many rows": (rules.few_rows, step(tensor(1, 5, 13107, 8)), step(tensor(1, 8, 8192, 8))),
    "kernel": (
        rules.eight_bit_kernel,
        step(ROWS, tensor(5, 12, values=[1])),
        step(ROWS, tensor(5, 12, dtype="int4", values=[1])),
    ),
    "kernel that is computed": (
        rules.eight_bit_kernel,
        step(ROWS, tensor(5, 12, values=[1])),
        step(ROWS, tensor(5, 12)),
    ),
    "type": (rules.input_of("int8"), step(ROWS), step(tensor(1, 7, dtype="int16"))),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_takes_what_the_document_says_and_tells_what_it_does_not(name):
    rule, met, broken = CASES[name]
    assert rule(met) == ""
    assert rule(broken)
