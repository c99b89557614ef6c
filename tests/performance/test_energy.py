from __future__ import annotations

import pytest

from tests.fake_gpu import A10, H100, FakeDriver, FakeNvml, NVMLError, install
from vit_deploy.performance.energy import EnergyMeter, GpuEnergyMeter, gpu_energy
from vit_deploy.runtimes.cuda.card import open_card


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
    put("intel-rapl:0", energy_uj=1_500_000)  # it went past its range and began again
    put("intel-rapl:0:0", energy_uj=900_000)
    put("intel-rapl:1", energy_uj=2_000_000)
    put("intel-rapl:2", energy_uj=7_000_000)  # the whole board, which the packages are a part of
    assert meter.joules() == pytest.approx(3.5)
    assert EnergyMeter(tmp_path / "nothing").joules() is None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    assert meter.joules() is None


@pytest.fixture
def nvml(monkeypatch):
    found = FakeNvml()
    install(monkeypatch, found)
    return found


def test_energy_is_that_of_the_one_card_and_of_no_other(nvml):
    card = open_card(0, lambda: FakeDriver(A10))  # the second of the machine, and the only one that is visible
    meter = GpuEnergyMeter(card)
    nvml.state[H100["bus_id"]]["energy"] += 90_000  # thousandths of a joule, of somebody else
    nvml.state[A10["bus_id"]]["energy"] += 1_250
    assert meter.joules() == 1.25
    assert (nvml.opened, nvml.closed) == (1, 0)  # and not again for each reading, whose energy would be counted


def test_a_gpu_that_does_not_count_gives_none(nvml):
    meter = GpuEnergyMeter(open_card(0, lambda: FakeDriver(H100)))
    nvml.state[H100["bus_id"]]["energy"] = NVMLError("not supported")
    assert meter.joules() is None
    assert GpuEnergyMeter(open_card(0, lambda: FakeDriver(H100))).joules() is None
    assert GpuEnergyMeter(None).joules() is None


def test_rounds_of_less_than_a_second_together_tell_no_energy_of_a_gpu():
    assert gpu_energy([10.0, 20.0], [500_000_000, 500_000_000]) == 30.0
    assert gpu_energy([10.0, 20.0], [300_000_000, 300_000_000]) is None
    assert gpu_energy([10.0, None], [500_000_000, 500_000_000]) is None
    assert gpu_energy([], []) is None
