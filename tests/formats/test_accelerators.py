"""Which operators accelerators leave to the CPU: of the files that are made here, and of every reason that there is."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ArtifactError
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.formats import accelerator_rules as rules
from vit_deploy.formats.accelerators import ACCELERATORS, fallbacks, to_json
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
    assert reasons(files["int8-full"], "ethos-u") == {
        "BATCH_MATMUL": (4, "no such operator"),
        "GELU": (2, "no such operator"),
        "TRANSPOSE": (2, "moves more than rows and columns"),  # of the values, whose last two axes change places
        "CONV_2D": (1, "has strides above 3"),  # the patches
    }
    assert reasons(files["int8-full"], "ethos-u85") == {"GELU": (2, "no such operator")}
    assert reasons(files["int8-full"], "hexagon") == {}


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
        found = {fallback.operator: fallback.count for fallback in fallbacks(files["fp32"], device)}
        assert found == dict(operators)
        assert all(fallback.reason == "computes in float32" for fallback in fallbacks(files["fp32"], device))


def test_sixteen_bits_are_for_the_device_that_has_them(files):
    assert reasons(files["int16x8"], "coral")["FULLY_CONNECTED"][1] == "computes in int16"
    for device in ("ethos-u", "ethos-u85", "hexagon"):
        found = reasons(files["int16x8"], device)
        assert "FULLY_CONNECTED" not in found
        assert found["SOFTMAX"][1] == found["QUANTIZE"][1] == "computes in float32"


def test_inspect_lists_them_and_has_none_for_other_formats(files, bundles):
    assert inspect(files["int8-full"]).to_dict()["accelerators"] == to_json(files["int8-full"])
    assert inspect(bundles["tflite"]).to_dict()["accelerators"]["coral"]
    assert inspect(bundles["onnx"]).to_dict()["accelerators"] is None


def test_what_is_no_tflite_file_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="is not a TFLite file"):
        fallbacks(tmp_path / "model.tflite", ACCELERATORS["coral"])


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
    """A table of five numbers, those named by their position and zeros."""
    values = [numbers.get(f"f{index}", 0) for index in range(5)]
    vtable = struct.pack("<7H2x", 14, 24, 4, 8, 12, 16, 20)
    return Table(vtable + struct.pack("<i5i", len(vtable), *values), len(vtable))


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
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields()),
        step(ROWS, ROWS, ROWS, order(1, 2, 1), options=fields()),
    ),
    "new axes": (
        rules.plain_slice,
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields(f4=1)),
        step(ROWS, ROWS, ROWS, order(1, 1, 1), options=fields(f3=1)),
    ),
    "strides": (
        rules.strides_to_three,
        step(tensor(1, 9, 12, 3), output=tensor(1, 3, 4, 8), options=fields(f1=3, f2=3)),
        step(tensor(1, 8, 12, 3), output=tensor(1, 2, 4, 8), options=fields(f1=3, f2=4)),
    ),
    "strides along a row": (
        rules.strides_to_three,
        step(tensor(1, 4, 12, 3), output=tensor(1, 1, 3, 8), options=fields(f1=4, f2=4)),
        step(tensor(1, 4, 15, 3), output=tensor(1, 1, 3, 8), options=fields(f1=5, f2=4)),
    ),
    "mean": (rules.mean_of_a_plane, step(ROWS, order(2)), step(tensor(2, 7, 12), order(2))),
    "mean of rows": (rules.mean_of_a_plane, step(tensor(2, 7, 12), order(1)), step(tensor(4097), order(0))),
    "many rows": (rules.few_rows, step(tensor(1, 5, 13107, 8)), step(tensor(1, 8, 8192, 8))),
    "rows and columns": (
        rules.swaps_neighbours,
        step(tensor(1, 7, 3, 4), order(0, 2, 1, 3)),
        step(tensor(1, 7, 3, 4), order(0, 2, 3, 1)),
    ),
    "of one head": (
        rules.swaps_neighbours,
        step(tensor(1, 7, 1, 4), order(0, 2, 3, 1)),
        step(tensor(1, 7, 1, 4), order(1, 0, 2, 3)),
    ),
    "an order that is computed": (
        rules.swaps_neighbours,
        step(tensor(7, 4), order(1, 0)),
        step(tensor(7, 4), tensor(2, dtype="int32")),
    ),
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
