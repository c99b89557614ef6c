"""On an NVIDIA GPU: a benchmark tells which card it was, how it did, and what a case took of it."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tests.linear_bundle import write_bundle
from vit_deploy.errors import EngineError
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.latency import to_json
from vit_deploy.performance.latency_json import from_json
from vit_deploy.performance.sweep import largest_under
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions
from vit_deploy.runtimes.cuda.card import count_devices, open_card

pytestmark = pytest.mark.gpu


@pytest.fixture
def case(tmp_path):
    """A small model on the first GPU; the test is skipped where ONNX Runtime has none."""
    if RUNTIMES["onnxruntime"].missing():
        pytest.skip("needs onnxruntime")
    try:
        RUNTIMES.load("onnxruntime")().prepare(RuntimeOptions(provider="cuda"))
    except EngineError as error:
        pytest.skip(error.message)
    return Case(write_bundle(tmp_path / "onnx-fp32"), "onnxruntime", "cuda", batch=4)


def test_the_card_and_what_a_case_took_of_it_are_told(case):
    [found] = bench([case], Plan(seconds=1.5, rounds=3))
    assert found.on_gpu and found.case.threads is None
    assert found.gpu is not None and found.gpu.name and found.gpu.cuda and found.gpu.compute_capability
    assert found.gpu.memory_mb > 1000
    assert len(found.gpu.rounds) == 3
    assert found.queued_throughput_per_s > 0 and found.transfer_ms > 0
    assert from_json(to_json(found)).gpu == found.gpu
    if importlib.util.find_spec("pynvml") is None:
        assert any("nvidia-ml-py" in note for note in found.notes)
        return
    assert found.gpu.uuid.startswith("GPU-") and found.gpu.driver and found.gpu.power_limit_w > 0
    assert all(state.sm_mhz > 0 and state.temperature_c > 0 for ends in found.gpu.rounds for state in ends)
    assert 10 < found.peak_gpu_mb < found.gpu.memory_mb
    assert found.gpu_energy_j > 0


def test_a_context_is_no_part_of_what_a_small_model_takes(case):
    [found] = bench([case], Plan(seconds=None, runs=5, warmup=1))
    assert found.growth_mb < 400  # libraries and context take more than that, and a model of some kilobytes does not


def test_the_card_is_found_by_the_number_that_cuda_gives_it(case):
    assert count_devices() >= 1
    assert open_card(count_devices()) is None
    cards = [open_card(index) for index in range(count_devices())]
    assert all(card is not None and card.facts.name for card in cards)
    if importlib.util.find_spec("pynvml") is not None:
        assert len({card.facts.uuid for card in cards}) == len(cards)
    assert (
        os.environ.get("CUDA_VISIBLE_DEVICES") is None
        or len(cards) <= os.environ["CUDA_VISIBLE_DEVICES"].count(",") + 1
    )


def test_the_largest_batch_under_a_time_is_searched_on_a_gpu(case):
    found = largest_under(case, 1e9, Plan(seconds=None, runs=3, warmup=1), most=4)
    assert [each.case.batch for each in found] == [1, 2, 4]
    assert found[0].under.batch == 4
