from __future__ import annotations

import json
import os

import pytest

from vit_deploy.core.host import read_host


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 cores and 4 GB whose files a test can write."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def write(**files):
        defaults = {"proc/meminfo": "MemTotal:        4000000 kB\n", "proc/cpuinfo": "model name\t: Fast CPU 9\n"}
        for name, text in {**defaults, **{key.replace("__", "/"): value for key, value in files.items()}}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_host(tmp_path)

    write.files = lambda files: write(**files)
    return write


def test_without_limits_the_whole_machine_counts(machine):
    host = machine()
    assert (host.cpu, host.cores, host.memory_mb, host.governor) == ("Fast CPU 9", 8.0, 4096.0, None)
    assert host.threads == 8


def test_the_affinity_counts(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    assert machine().cores == 2.0


def test_a_quota_of_control_groups_version_2_counts_wherever_it_is_set(machine):
    host = machine.files(
        {
            "proc/self/cgroup": "0::/box/inner\n",
            "sys/fs/cgroup/box/inner/cpu.max": "max 100000\n",
            "sys/fs/cgroup/box/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/box/inner/memory.max": "1000000000\n",
            "sys/fs/cgroup/box/memory.max": "max\n",
        }
    )
    assert host.cores == 1.5
    assert host.threads == 1
    assert host.memory_mb == 1000.0


def test_a_quota_of_control_groups_version_1_counts(machine):
    host = machine.files(
        {
            "proc/self/cgroup": "7:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    assert host.cores == 3.0
    assert host.memory_mb == 4096.0


def test_no_quota_is_no_limit_in_version_1(machine):
    host = machine.files(
        {
            "proc/self/cgroup": "7:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert host.cores == 8.0


def test_less_than_a_core_still_has_a_thread(machine):
    host = machine.files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "20000 100000"})
    assert host.cores == 0.2
    assert host.threads == 1


@pytest.mark.parametrize(("quota", "said"), [("100000", "1 core"), ("150000", "1.5 cores"), ("20000", "0.2 cores")])
def test_cores_are_counted_in_words(machine, quota, said):
    host = machine.files({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000"})
    assert host.cores_in_words == said


def test_the_governor_is_read_where_it_can_be(machine):
    host = machine.files({"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n"})
    assert host.governor == "powersave"


def test_the_frequency_is_the_mean_of_the_kernels_figures_else_of_the_processors_own(machine):
    folder = "sys/devices/system/cpu"
    assert machine.files({"proc/cpuinfo": "cpu MHz\t: 2000.0\ncpu MHz\t: 3000.5\n"}).cpu_mhz == 2500.25
    scaling = {f"{folder}/cpu{core}/cpufreq/scaling_cur_freq": f"{khz}\n" for core, khz in ((0, 1800000), (1, 600000))}
    assert machine.files(scaling).cpu_mhz == 1200.0


def test_the_temperature_is_that_of_the_warmest_sensor(machine):
    assert machine().temperature_c is None
    zones = {"thermal_zone0": "41500", "thermal_zone1": "62000", "thermal_zone2": "-5000"}
    assert machine.files({f"sys/class/thermal/{zone}/temp": text for zone, text in zones.items()}).temperature_c == 62


@pytest.mark.parametrize(
    ("quota", "busy", "competing"),
    [
        (None, 3.0, 3.0),  # of the 8 cores this process may use
        ("200000 100000", 3.0, 0.0),  # it gets 2 of them, and 5 are idle
        ("200000 100000", 7.5, 1.5),
    ],
)
def test_others_compete_for_the_cores_that_this_process_really_gets(
    machine, tmp_path, monkeypatch, quota, busy, competing
):
    def stat(seconds):
        ticks = int(seconds * os.sysconf("SC_CLK_TCK"))
        # user nice system idle iowait irq softirq steal; the ninth core is not of this process.
        return f"cpu  9 9 9 9 9 9 9 9\ncpu0 {ticks} 0 0 500 70 0 0 0\ncpu8 {99 * ticks} 0 0 0 0 0 0 0\n"

    def sleep(seconds):
        (tmp_path / "proc/stat").write_text(stat(100 + busy * seconds))

    monkeypatch.setattr("vit_deploy.core.host.time.sleep", sleep)
    group = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": f"{quota}\n"} if quota else {}
    assert machine.files({"proc/stat": stat(100), **group}).competing == pytest.approx(competing)


def test_this_machine_can_be_written_as_json():
    host = read_host()
    assert json.loads(json.dumps(host.to_dict())) == host.to_dict()
    assert 0 < host.cores <= (os.cpu_count() or 1)
    assert host.cpu and host.os and host.python
