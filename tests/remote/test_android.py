"""Files are timed on an Android device that the real `adb` reaches, and what stands in the way is one clear error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import vit_deploy
from tests.linear_bundle import write_bundle
from tests.remote.android_device import PROPERTIES, FakeDevice, write_program
from vit_deploy.errors import ConfigError, MissingEngineError, RemoteError, UsageError
from vit_deploy.remote.android import adb as adb_module
from vit_deploy.remote.android import benchmark_model
from vit_deploy.remote.android.adb import Device, device_at
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


def test_the_program_is_given_time_for_all_that_was_asked():
    common = {"threads": 2, "xnnpack": True, "most_s": 1200.0}
    for words in (
        benchmark_model.arguments("x", seconds=200.0, runs=None, **common),
        benchmark_model.arguments("x", seconds=3.0, runs=9000, **common),
    ):
        assert "--max_secs=1200" in words


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
    for options in ({"remote_python": "python3.12"}, {"ssh_config": tmp_path / "config"}):
        with pytest.raises(UsageError, match="adb:// takes neither"):
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
    assert all("--max_secs=600" in command for command in run)


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


REFUSES_THE_FIRST = f"""#!/bin/sh
[ "$1" = --help ] && echo --graph && exit 1
[ -e $0.ran ] || {{ touch $0.ran; echo no such operator; exit 1; }}
cat <<END
{SAID}END
"""
GOES_ON = """#!/bin/sh
[ "$1" = --help ] && echo --graph && exit 1
echo $$ > {file}
while :; do sleep 0.2; done
"""


@pytest.mark.slow
def test_a_file_that_the_program_refuses_does_not_lose_those_of_the_same_device(adb, bundles, tmp_path):
    program = tmp_path / "benchmark_model"
    program.write_text(REFUSES_THE_FIRST)
    paths = [shutil.copytree(bundles["tflite"], tmp_path / name) for name in ("refused", "measured")]
    with FakeDevice(tmp_path / "device").listening() as device:
        hosts = tmp_path / "hosts.toml"
        address = connect(device)
        phone = f'[hosts.phone]\naddress = "{address}"\ngroups = ["lab"]\n'
        hosts.write_text(f'{phone}[hosts.away]\naddress = "adb://gone"\n')
        words = [sys.executable, "-m", "vit_deploy", "bench", *map(str, paths), "--hosts", str(hosts), "--json"]
        words += ["--benchmark-model", str(program), "--runs", "3", "--threads", "1"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300)
        assert device.left == []
    said = json.loads(done.stdout)
    [record], [failed], [phone, away] = said["results"], said["failed"], said["hosts"]
    assert done.returncode == 2 and not said["ok"]  # as where a file is not timed on this machine
    assert (record["artifact"], record["on"], record["address"]) == (str(paths[1]), "phone", address)
    assert failed["artifact"] == str(paths[0]) and "ended with exit 1: no such operator" in failed["error"]["message"]
    assert f"{paths[0]} was not timed: {address} with xnnpack and 1 thread" in done.stderr
    assert phone == {"name": "phone", "address": address, "groups": ["lab"], "ok": False, "results": 1}
    assert (away["name"], away["ok"], away["results"]) == ("away", False, 0) and "not found" in away["error"]["message"]


def started(file: Path) -> int:
    """The process of the program that goes on for ever."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if file.exists() and (number := file.read_text().strip()):
            return int(number)
        time.sleep(0.05)
    raise AssertionError("the program was not run")


def ended(process: int) -> bool:
    """Whether a process ends soon."""
    end = time.monotonic() + 20
    while Path(f"/proc/{process}").exists():
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("features", ["shell_v2,cmd", "cmd"])
def test_a_program_that_takes_too_long_is_ended_there(adb, bundles, tmp_path, features):
    program = tmp_path / "benchmark_model"
    program.write_text(GOES_ON.format(file=tmp_path / "number"))
    with FakeDevice(tmp_path / "device", features).listening() as device:
        with pytest.raises(RemoteError, match="gave no answer in time"):
            vit_deploy.bench(bundles["tflite"], on=connect(device), benchmark_model=program, threads=1, timeout=6.0)
        assert ended(started(tmp_path / "number"))
        assert device.left == []


@pytest.mark.slow
def test_an_interrupt_of_the_command_alone_ends_what_runs_there(adb, bundles, tmp_path):
    program = tmp_path / "benchmark_model"
    program.write_text(GOES_ON.format(file=tmp_path / "number"))
    with FakeDevice(tmp_path / "device").listening() as device:
        words = [sys.executable, "-m", "vit_deploy", "bench", str(bundles["tflite"]), "--on", connect(device)]
        words += ["--benchmark-model", str(program), "--threads", "1"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            there = started(tmp_path / "number")
            process.send_signal(signal.SIGINT)
            try:
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
        assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
        assert ended(there)
        assert device.left == []


@pytest.mark.slow
def test_what_a_device_has_no_room_for_is_told_beside_what_was_measured(bundles, program, tmp_path, monkeypatch):
    paths = [shutil.copytree(bundles["tflite"], tmp_path / name) for name in ("large", "small")]

    class Full(Device):
        def _adb(self, arguments, limit_s):
            if arguments[0] == "push":
                return (1, "no space left") if "large" in arguments[1] else (0, "")
            graph = f"{SAID}\n" if "--graph=" in arguments[-1] else "--graph\n"
            return 0, "device" if arguments == ["get-state"] else f"{graph}vit-deploy ended with 0\n"

    monkeypatch.setattr(adb_module, "Device", Full)
    monkeypatch.setattr(adb_module, "_start_server", lambda limit_s: None)
    found = vit_deploy.bench(paths, on="adb://x", benchmark_model=program, threads=1)
    [failed] = found.failed
    assert [timing.artifact for timing in found.phones] == [paths[1]] and failed.name == str(paths[0])
    assert failed.error.message == "model.tflite cannot be put on adb://x: no space left" and not found.ok
    assert found.hosts == () and not found.unanswered
