"""The card is the one that CUDA numbers for this process, and what cannot be told of it is None and said once."""

from __future__ import annotations

import ctypes
import json

import pytest

from tests.fake_gpu import A10, H100, FakeDriver, FakeNvml, NVMLError, install, running
from vit_deploy.core.gpu import Gpu, GpuState, differences, gpu_from, reasons_in
from vit_deploy.runtimes.cuda.card import Card, GpuMemory, count_devices, cuda_device, load_driver, open_card


def no_driver():
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.fixture
def nvml(monkeypatch):
    found = FakeNvml()
    install(monkeypatch, found)
    return found


def test_the_real_driver_library_has_every_function_that_is_called():
    try:
        driver = load_driver()
    except OSError:
        pytest.skip("needs NVIDIA's driver")
    names = ("cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDriverGetVersion", "cuDeviceGetName")
    names += ("cuDeviceGetPCIBusId", "cuDeviceGetAttribute", "cuDeviceTotalMem_v2")
    assert all(isinstance(getattr(driver, name), ctypes._CFuncPtr) for name in names)


def test_the_real_package_has_every_function_that_is_called():
    real = pytest.importorskip("pynvml")
    assert [name for name in vars(FakeNvml().module) if not hasattr(real, name)] == []


def test_a_card_is_found_by_its_place_and_not_by_nvmls_own_number(nvml):
    # With CUDA_VISIBLE_DEVICES=1 the one card that CUDA sees is NVML's second.
    card = open_card(0, lambda: FakeDriver(A10))
    assert card is not None
    assert card.facts == Gpu(
        "NVIDIA A10",
        uuid="GPU-3a",
        driver="580.65.06",
        cuda="13.0",
        compute_capability="8.6",
        memory_mb=24_000.0,
        mig=False,
        compute_mode="default",
        power_limit_w=700.0,
    )
    other = open_card(1, lambda: FakeDriver(A10, H100, version=12080))
    assert other is not None and (other.facts.uuid, other.facts.cuda) == ("GPU-1b", "12.8")
    assert card.notes == []


def test_without_a_driver_or_a_card_of_that_number_there_is_none(nvml):
    assert open_card(0, no_driver) is None
    assert open_card(0, lambda: FakeDriver(H100, init=100)) is None  # CUDA_ERROR_NO_DEVICE
    assert open_card(1, lambda: FakeDriver(H100)) is None
    assert cuda_device(0, no_driver) is None
    assert [count_devices(load) for load in (no_driver, lambda: FakeDriver(H100, A10))] == [0, 2]
    assert count_devices(lambda: FakeDriver(H100, init=100)) == 0
    assert nvml.opened == 0


def test_without_the_package_the_driver_tells_what_it_can_and_one_note_names_the_package(monkeypatch):
    install(monkeypatch, None)
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    facts = card.facts
    assert (facts.name, facts.compute_capability, facts.memory_mb) == ("NVIDIA H100 80GB HBM3", "9.0", 85_000.0)
    assert (facts.uuid, facts.driver, facts.mig, facts.power_limit_w) == (None,) * 4
    assert card.state() == GpuState() and card.energy_j() is None and card.used_mb() is None
    [note] = card.notes
    assert "pip install nvidia-ml-py" in note


def test_a_library_that_does_not_answer_is_a_note_and_no_crash(nvml):
    nvml.refuses = "Driver/library version mismatch"
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None and card.facts.driver is None
    assert "NVML does not answer: Driver/library version mismatch" in card.notes[0]


def test_what_a_card_does_not_know_is_none_and_the_rest_is_told(nvml):
    nvml.state[H100["bus_id"]] |= {
        "mig": NVMLError("not supported"),
        "limit": NVMLError("no"),
        "energy": NVMLError("no"),
    }
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    assert (card.facts.mig, card.facts.power_limit_w, card.facts.uuid) == (False, None, "GPU-1b")
    assert card.energy_j() is None and card.state().sm_mhz == 1980.0


def test_a_slice_has_its_own_name_and_memory_and_the_cards_clock_and_energy_which_is_said(nvml):
    part = {**H100, "name": "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "memory": 10_000_000_000}
    nvml.state[H100["bus_id"]]["mig"] = [1, 1]
    card = open_card(0, lambda: FakeDriver(part))
    assert card is not None
    assert (card.facts.name, card.facts.memory_mb, card.facts.mig) == (part["name"], 10_000.0, True)
    assert card.energy_j() == 5_000.0
    assert "whole GPU, of which it had a MIG slice" in card.notes[0]


def test_nvml_is_opened_once_and_stays_open(nvml):
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    for _ in range(3):
        card.energy_j()
        card.state()
    assert (nvml.opened, nvml.closed) == (1, 0)


def test_reasons_are_told_in_words_by_the_new_and_by_the_old_name(nvml):
    nvml.state[H100["bus_id"]] |= {"reasons": 0x4 | 0x40, "clock": 1500, "temperature": 88}
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    expected = GpuState(1500.0, ("power limit", "thermal slowdown by hardware"), 88.0)
    assert card.state() == expected
    nvml.module.nvmlDeviceGetCurrentClocksThrottleReasons = nvml.module.nvmlDeviceGetCurrentClocksEventReasons
    del nvml.module.nvmlDeviceGetCurrentClocksEventReasons
    assert card.state() == expected
    assert reasons_in(0) == () and reasons_in(1 << 40) == ("0x10000000000",)


def test_clocks_that_change_and_what_holds_them_down_are_disturbances():
    def on(*states):
        return list(Gpu("H100", rounds=tuple(states)).disturbances)

    steady = GpuState(1980.0, ("idle", "application clocks"), 40.0)
    assert on((steady, GpuState(1905.0))) == []
    assert on((steady, GpuState(1800.0))) == ["the GPU's clock was between 1800 and 1980 MHz"]
    hot = GpuState(1980.0, ("thermal slowdown by software", "idle"))
    assert on((steady, hot), (hot, hot)) == ["the GPU's clock was held down: thermal slowdown by software"]
    assert on((GpuState(), GpuState())) == []


def test_a_power_limit_is_a_note_and_disturbs_only_where_the_clock_changes_between_rounds():
    def at(*rounds):
        states = tuple(tuple(GpuState(clock, ("power limit",)) for clock in ends) for ends in rounds)
        return Gpu("H100", power_limit_w=700.0, rounds=states)

    noted = ("the GPU ran at its power limit of 700 W, which sets its clock then",)
    # An H100 under full load, whose medians of these rounds were within 1.1 %.
    wavering = at((1470.0, 1485.0), (1425.0, 1455.0), (1485.0, 1455.0), (1560.0, 1455.0), (1440.0, 1455.0))
    assert list(wavering.disturbances) == [] and wavering.notes == noted
    falling = at((1395.0, 1405.0), (1310.0, 1290.0))
    assert list(falling.disturbances) == ["the GPU's clock was between 1300 and 1400 MHz"] and falling.notes == noted
    reached = Gpu("H100", rounds=((GpuState(1980.0), GpuState(1500.0, ("power limit",))),))
    assert list(reached.disturbances) == ["the GPU's clock was between 1500 and 1980 MHz"]
    assert Gpu("H100", rounds=((GpuState(1980.0, ("idle",)),) * 2,)).notes == ()


def test_facts_survive_a_file_and_damaged_ones_are_refused():
    facts = Gpu(
        "H100", "GPU-1", "580.1", "13.0", "9.0", 85e3, False, "default", 700.0, ((GpuState(1980.0), GpuState()),)
    )
    written = json.loads(json.dumps(facts.to_dict()))
    assert gpu_from(written) == facts
    assert gpu_from({**written, "fans": 3}) == facts
    for broken in ({"name": None}, {"driver": 5}, {"memory_mb": "much"}, {"mig": "yes"}, {"rounds": [[{}]]}):
        with pytest.raises((TypeError, ValueError)):
            gpu_from({**written, **broken})
    with pytest.raises(ValueError, match="power_limit_w"):
        gpu_from({**written, "power_limit_w": float("inf")})


def test_gpus_differ_by_name_slices_and_power_limit_and_not_by_what_is_unknown():
    one = Gpu("H100", "GPU-1", "580.1", mig=False, power_limit_w=700.0)
    assert differences(one, Gpu("H100", "GPU-2", "570.1", mig=False, power_limit_w=700.0)) == []
    assert differences(one, Gpu("H100")) == [] and differences(None, one) == [] and differences(one, None) == []
    assert differences(one, Gpu("A10", mig=True, power_limit_w=150.0)) == [
        "GPU H100, now A10",
        "MIG off, now on",
        "power limit in W 700, now 150",
    ]


def test_memory_is_that_of_the_process_where_nvml_tells_it(nvml):
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    state, memory = nvml.state[H100["bus_id"]], GpuMemory(card)
    for own in (900, 1400, 1200):
        with memory.watched():
            state["processes"] = [running(own), running(5_000, process=1)]
    assert memory.peak_mb == 1400.0 and memory.notes == []


@pytest.mark.parametrize("listed", [[], [running(None)]], ids=["not listed", "listed without a figure"])
def test_memory_is_the_growth_of_the_cards_where_nvml_does_not_tell_and_others_growth_between_is_not_counted(
    nvml, listed
):
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    state, memory = nvml.state[H100["bus_id"]], GpuMemory(card)
    state["processes"] = listed
    for own, others in ((600, 0), (250, 4_000), (-100, 0)):
        with memory.watched():
            state["used"] += own * 1_000_000
        state["used"] += others * 1_000_000
    assert memory.peak_mb == pytest.approx(850.0)
    assert "how much that in use on the card grew" in memory.notes[0]


def test_a_process_outside_the_container_that_has_our_number_is_not_taken_for_us(nvml):
    state = nvml.state[H100["bus_id"]]
    state["processes"] = [running(70_000)]  # before this process opened the card
    card = open_card(0, lambda: FakeDriver(H100))
    assert card is not None
    memory = GpuMemory(card)
    with memory.watched():
        state["used"] += 300_000_000
    assert memory.peak_mb == pytest.approx(300.0)


def test_memory_that_nothing_tells_is_none(monkeypatch):
    install(monkeypatch, None)
    card = open_card(0, lambda: FakeDriver(H100))
    assert isinstance(card, Card)
    memory = GpuMemory(card)
    with memory.watched():
        pass
    assert memory.peak_mb is None and memory.notes == []
