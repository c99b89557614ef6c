from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from vit_deploy.energy import EnergyMeter, GpuEnergyMeter


def test_energy_is_what_the_counters_of_the_packages_grew_by(tmp_path):
    def put(folder, **files):
        (tmp_path / folder).mkdir(exist_ok=True)
        for key, value in files.items():
            (tmp_path / folder / key).write_text(f"{value}\n")

    put("intel-rapl:0", name="package-0", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    put("intel-rapl:1", name="package-1", energy_uj=1_000_000, max_energy_range_uj=10_000_000)
    put("intel-rapl:2", name="psys", energy_uj=0, max_energy_range_uj=10_000_000)
    put("intel-rapl:0:0", energy_uj=1, max_energy_range_uj=10_000_000)
    meter = EnergyMeter(tmp_path)
    put("intel-rapl:0", energy_uj=1_500_000)  # it went past its range and began anew
    put("intel-rapl:0:0", energy_uj=900_000)
    put("intel-rapl:1", energy_uj=2_000_000)
    put("intel-rapl:2", energy_uj=7_000_000)  # the whole board, which the packages are a part of
    assert meter.joules() == pytest.approx(3.5)
    assert EnergyMeter(tmp_path / "nothing").joules() is None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    assert meter.joules() is None


class NVMLError(Exception):
    """What NVIDIA's library raises."""


@pytest.fixture
def nvml(monkeypatch):
    """nvidia-ml-py with two GPUs that count."""
    state = SimpleNamespace(counters=[5_000, 70_000], opened=0)

    def count(index):
        if state.counters[index] is None:
            raise NVMLError("not supported")
        return state.counters[index]

    def begin():
        state.opened += 1

    def end():
        state.opened -= 1

    module = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=begin,
        nvmlShutdown=end,
        nvmlDeviceGetCount=lambda: len(state.counters),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=count,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    state.module = module
    return state


def test_energy_is_what_the_counters_of_all_gpus_grew_by(nvml):
    meter = GpuEnergyMeter()
    nvml.counters = [5_250, 71_000]  # thousandths of a joule
    assert meter.joules() == 1.25
    assert nvml.opened == 0


def test_gpus_that_do_not_count_give_none(nvml):
    meter = GpuEnergyMeter()
    nvml.counters = [5_250, None]
    assert meter.joules() is None
    assert GpuEnergyMeter().joules() is None
    nvml.counters = []
    assert GpuEnergyMeter().joules() is None
    assert nvml.opened == 0


def test_without_a_driver_or_the_package_there_is_none(nvml, monkeypatch):
    def fail():
        raise NVMLError("driver not loaded")

    nvml.module.nvmlInit = fail
    assert GpuEnergyMeter().joules() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuEnergyMeter().joules() is None
