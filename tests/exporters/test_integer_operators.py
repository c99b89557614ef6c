"""Operators of TFLite files that are spelled so that accelerators of integers have kernels for all of them."""

from __future__ import annotations

import pytest

from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.formats.accelerators import ACCELERATORS, fallbacks, verdict
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps


@pytest.fixture(scope="module")
def files(make_checkpoint, tmp_path_factory):
    """A model with norms of queries and keys, and the largest of all tokens, by precision."""
    jobs, _ = plan(["tflite"], ["fp32", "int8-full"])
    checkpoint = make_checkpoint(qk_norm=True, pooling="max")
    options = QuantizeOptions(measure_speed=False)
    made = export(checkpoint, tmp_path_factory.mktemp("made"), jobs, options)
    assert [result.parity.ok for result in made.results] == [True, True]
    return {result.artifact.precision: result.artifact.model_path for result in made.results}


def test_norms_of_heads_and_the_largest_token_are_integers(files):
    with opened(files["int8-full"]) as model:
        steps = list(read_steps(model))
        computed = {tensor.dtype for step in steps for tensor in (*step.inputs, *step.outputs)}
        assert computed <= {"int8", "int16", "int32"}
        means = [step for step in steps if step.kind == "MEAN"]
        assert means and all(len(step.inputs[0].shape) <= 3 for step in means)
        assert [step.kind for step in steps].count("MAX_POOL_2D") == 1
        assert not any(step.kind == "REDUCE_MAX" for step in steps)


def test_axes_of_means_count_from_the_first(files):
    for path in files.values():
        with opened(path) as model:
            axes = [step.inputs[1].values().tolist() for step in read_steps(model) if step.kind == "MEAN"]
        assert axes and all(axis >= 0 for each in axes for axis in each)


@pytest.mark.parametrize("device", ["ethos-u", "ethos-u85", "hexagon"])
def test_accelerators_leave_nothing_of_it_to_the_cpu(files, device):
    assert verdict(files["int8-full"], ACCELERATORS[device]).left == ()
    assert fallbacks(files["int8-full"], ACCELERATORS[device]) == ()
