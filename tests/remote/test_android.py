"""Files are timed on an Android device that the real `adb` reaches, and what stands in the way is one clear error."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vit_deploy
from tests.linear_bundle import write_bundle
from tests.remote.android_device import PROPERTIES, FakeDevice, write_program
from vit_deploy.errors import ConfigError, MissingEngineError, RemoteError, UsageError
from vit_deploy.remote.android import benchmark_model
from vit_deploy.remote.android.adb import device_at
from vit_deploy.remote.android.timing import PhoneTiming

SAID = """INFO: STARTING!
VERBOSE: Replacing 318 out of 320 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions.
INFO: Initialized session in 4.108ms.
INFO: count=9 first=21415 curr=16021 min=15880 max=21415 avg=16301.7 std=969 p5=15880 median=16021 p95=21415

INFO: count=62 first=16085 curr=16137 min=15803 max=16443 avg=16097.9 std=120 p5=15900 median=16085 p95=16300

INFO: Inference timings in us: Init: 4108, First inference: 21415, Warmup (avg): 16301.7, Inference (avg): 16097.9
INFO: Memory footprint delta from the start of the tool (MB): init=3.5 overall=12.5
"""


def test_its_own_statistic_is_read_with_its_units():
    found = benchmark_model.read(SAID).to_dict()
    assert found["calls"] == 62 and found["delegated"] == [318, 320]
    assert found["load_ms"] == pytest.approx(4.108) and found["first_ms"] == pytest.approx(21.415)
    assert found["mean_ms"] == pytest.approx(16.0979) and found["p50_ms"] == pytest.approx(16.085)
    assert found["min_ms"] == pytest.approx(15.803) and found["p95_ms"] == pytest.approx(16.3)
    assert found["memory_mb"] == pytest.approx(12.5 * 1.048576)


def test_what_older_ones_do_not_say_is_absent():
    older = SAID.replace(" p5=15900 median=16085 p95=16300", "").partition("INFO: Memory")[0].replace("INFO: ", "")
    found = benchmark_model.read(older).to_dict()
    assert found["p50_ms"] is None and found["memory_mb"] is None and found["std_ms"] == pytest.approx(0.12)
    slow = "count=1 curr=1041765\nInference timings in us: Init: 6418, First inference: 9, Warmup (avg): 1.04e+06, "
    slow += "Inference (avg): 1.04176e+06"
    one = benchmark_model.read(slow).to_dict()
    assert one["mean_ms"] == pytest.approx(1041.76) and one["min_ms"] == pytest.approx(1041.765)


def test_no_timings_are_an_error_with_its_last_words():
    with pytest.raises(RemoteError, match=r"gave no timings: .*Benchmarking failed"):
        benchmark_model.read("ERROR: Failed to load model\nERROR: Benchmarking failed.\n")


@pytest.mark.parametrize("address", ["adb://", "adb://-s", "adb://a b", "adb:x", "adb://a/b"])
def test_an_address_that_no_device_has_is_refused(address):
    with pytest.raises(ConfigError, match="is no address of an Android device"):
        device_at(address, 1.0)


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("Replacing 320 out of 320 node(s) with delegate (TfLiteXNNPackDelegate) node", None),
        ("Replacing 3 out of 320 node(s) with delegate (TfLiteXNNPackDelegate) node", "took 3 of 320 operators"),
        ("", "does not say that XNNPACK took anything"),
    ],
)
def test_a_delegate_that_did_not_take_all_is_told(line, remark):
    said = SAID.replace(SAID.splitlines()[1], line)
    timing = PhoneTiming("adb://x", Path("a"), "xnnpack", 4, 1, 1000, benchmark_model.read(said), {}, {"runs": 1})
    record = timing.to_dict()
    assert record["batch"] == 4 and record["throughput_per_s"] == pytest.approx(4e3 / record["mean_ms"])
    more = record["remarks"][1:]
    assert more == [] if remark is None else remark in more[0]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return write_program(tmp_path / "benchmark_model_android")


def test_what_the_program_is_not_asked_for_is_refused(program, tmp_path):
    artifact = write_bundle(tmp_path / "onnx-fp32")
    given = {"on": "adb://x", "benchmark_model": program}
    for options in ({"batch": 2}, {"streams": 2}, {"runtime": "ort"}, {"profile": True}, {"provider": "cuda"}):
        with pytest.raises(UsageError, match="benchmark_model times a TFLite file as it is"):
            vit_deploy.bench(artifact, **given, **options)
    for options in ({"save": tmp_path / "x.json"}, {"baseline": None, "save": tmp_path / "y.json"}):
        with pytest.raises(UsageError, match="gives a statistic"):
            vit_deploy.bench(artifact, **given, **options)
    with pytest.raises(UsageError, match="no Python") as error:
        vit_deploy.bench(artifact, on="adb://x")
    assert "--benchmark-model" in error.value.fix
    with pytest.raises(ConfigError, match="there is no file"):
        vit_deploy.bench(artifact, on="adb://x", benchmark_model=tmp_path / "absent")
    with pytest.raises(ConfigError, match="takes TFLite files alone"):
        vit_deploy.bench(artifact, **given)
    with pytest.raises(UsageError, match="is for Android devices"):
        vit_deploy.bench(artifact, benchmark_model=program)
    with pytest.raises(UsageError, match="other machines"):
        vit_deploy.bench(artifact, on=["adb://x", "ssh://y"], benchmark_model=program)
    with pytest.raises(ConfigError, match="has no Python, which proves and classifies"):
        vit_deploy.verify(artifact, on="adb://x")


def test_a_computer_without_adb_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingEngineError, match="there is no adb") as error:
        device_at("adb://x", 10.0).check()
    assert "apt-get install adb" in error.value.fix


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server of the real `adb`, with keys and a port of its own."""
    if shutil.which("adb") is None:
        pytest.skip("needs adb")
    folder = tmp_path_factory.mktemp("adb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch, (folder / "log").open("wb") as log:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(folder))
        patch.setenv("ANDROID_USER_HOME", str(folder / ".android"))
        patch.setenv("ANDROID_SDK_HOME", str(folder))
        subprocess.run(["adb", "start-server"], stdout=log, stderr=log, check=True, timeout=60)
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], stdout=log, stderr=log, timeout=60)


def connect(device: FakeDevice) -> str:
    """Let `adb` know the device; gives its address."""
    words = ["adb", "connect", device.serial]
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    return f"adb://{device.serial}"


@pytest.mark.slow
@pytest.mark.parametrize("features", ["shell_v2,cmd", "cmd"])  # of Android 7 and later, and of older ones
def test_a_file_is_timed_on_a_device_and_nothing_stays_there(adb, bundles, program, tmp_path, features):
    pytest.importorskip("ai_edge_litert")
    with FakeDevice(tmp_path / "device", features).listening() as device:
        address = connect(device)
        found = vit_deploy.bench(
            bundles["tflite"], on=address, benchmark_model=program, runs=5, threads=[1, 2], provider="cpu"
        )
        assert device.left == []
    assert found.ok and len(found.phones) == 2
    for record, threads in zip(found.records, (1, 2), strict=True):
        assert record["on"] == address and record["threads"] == threads and record["calls"] >= 5
        assert record["statistic"] == "benchmark_model" and record["samples_ns"] == []
        assert 0 < record["min_ms"] <= record["mean_ms"] <= record["max_ms"] and record["load_ms"] > 0
        assert record["android"] == dict(zip(("model", "android", "abi"), PROPERTIES.values(), strict=True))
        assert "compared with nothing" in record["remarks"][0]
    run = [command for command in device.commands if "--graph=" in command]
    assert len(run) == 2 and "--use_xnnpack=false" in run[0] and "--num_threads=2" in run[1]


@pytest.mark.slow
@pytest.mark.parametrize("features", ["shell_v2,cmd", "cmd"])
def test_exit_codes_come_from_the_device(adb, tmp_path, features):
    with FakeDevice(tmp_path / "device", features).listening() as there:
        device = device_at(connect(there), 60.0)
        assert device.shell("echo a; exit_of() { return 3; }; exit_of", 20.0) == (3, "a\n")
        assert device.shell("true", 20.0) == (0, "")
        assert "cannot remove" in device.remove("/proc/self")


@pytest.mark.slow
def test_the_command_prints_a_table_and_a_document(adb, bundles, program, tmp_path):
    pytest.importorskip("ai_edge_litert")
    with FakeDevice(tmp_path / "device").listening() as device:
        words = [sys.executable, "-m", "vit_deploy", "bench", str(bundles["tflite"]), "--on", connect(device)]
        words += ["--benchmark-model", str(program), "--runs", "3", "--threads", "1"]
        plain, document = (
            subprocess.run(
                [*words, *more], capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "200"}
            )
            for more in ([], ["--json"])
        )
    assert plain.returncode == 0 and "mean ms" in plain.stdout and "benchmark_model prints" in plain.stderr, (
        plain.stderr
    )
    said = json.loads(document.stdout)
    assert said["ok"] and said["results"][0]["mean_ms"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "expected", "fix"),
    [
        ({"trusts": False}, "unauthorized", "allow this computer"),
        ({"dumb": True}, "offline", "connect the device again"),
        (None, "not found", "adb devices"),
    ],
)
def test_a_device_that_takes_no_commands_is_named_with_its_state(
    adb, bundles, program, tmp_path, device, expected, fix
):
    given = {"benchmark_model": program, "runs": 1}
    if device is None:
        with pytest.raises(RemoteError, match=expected) as error:
            vit_deploy.bench(bundles["tflite"], on="adb://emulator-5554", **given)
    else:
        with FakeDevice(tmp_path / "device", **device).listening() as there:
            address = connect(there)
            with pytest.raises(RemoteError, match=f"takes no commands: .*{expected}") as error:
                vit_deploy.bench(bundles["tflite"], on=address, **given)
    assert fix in error.value.fix


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF\x02\x01\x01 for another processor", "does not run .*benchmark_model"),
        (b"#!/bin/sh\necho hello\n", "does not run .*benchmark_model"),
        (b'#!/bin/sh\n[ "$1" = --help ] && echo --graph || { echo no such operator; exit 1; }\n', "no such operator"),
        (b'#!/bin/sh\n[ "$1" = --help ] && echo --graph || echo done\n', "gave no timings: done"),
        (
            b'#!/bin/sh\n[ "$1" = --help ] && echo --graph && exit 1\ncat <<END\n' + SAID.encode() + b"END\nexit 3\n",
            "ended with exit 3",
        ),
    ],
)
def test_a_program_that_does_not_time_is_an_error_with_its_words(adb, bundles, tmp_path, content, expected):
    program = tmp_path / "benchmark_model"
    program.write_bytes(content)
    with FakeDevice(tmp_path / "device").listening() as device:
        address = connect(device)
        with pytest.raises(RemoteError, match=expected) as error:
            vit_deploy.bench(bundles["tflite"], on=address, benchmark_model=program, runs=1, threads=1)
        assert device.left == [] and error.value.fix


@pytest.mark.slow
def test_devices_that_answer_count_where_another_is_gone(adb, bundles, program, tmp_path):
    pytest.importorskip("ai_edge_litert")
    with FakeDevice(tmp_path / "device").listening() as device:
        address = connect(device)
        found = vit_deploy.bench(
            bundles["tflite"], on=["adb://gone", address], benchmark_model=program, runs=1, threads=1
        )
    assert (
        not found.ok
        and list(found.unanswered) == ["adb://gone"]
        and [timing.on for timing in found.phones] == [address]
    )
