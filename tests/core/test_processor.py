"""Names of processors from `/proc/cpuinfo` in the shapes that kernels print."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from vit_deploy.core.processor import CORES, cpu_model


def core(number: int, part: str, *, implementer: str = "0x41", name: str = "") -> str:
    lines = [f"processor\t: {number}"]
    lines += [f"model name\t: {name}"] if name else []
    lines += [
        "BogoMIPS\t: 108.00",
        "Features\t: fp asimd evtstrm crc32 cpuid",
        f"CPU implementer\t: {implementer}",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        f"CPU part\t: {part}",
        "CPU revision\t: 3",
    ]
    return "\n".join(lines) + "\n\n"


PI_3_OLD = (
    core(0, "0xd03", name="ARMv7 Processor rev 4 (v7l)")
    + "Hardware\t: BCM2835\nRevision\t: a02082\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 3 Model B Rev 1.2\n"
)
PI_4_OLD = (
    core(0, "0xd08", name="ARMv7 Processor rev 3 (v7l)")
    + "Hardware\t: BCM2711\nRevision\t: c03111\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1\n"
)
PI_5 = (
    core(0, "0xd0b")
    + core(1, "0xd0b")
    + "Revision\t: d04170\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
)
JETSON = core(0, "0xd42", name="ARMv8 Processor rev 1 (v8l)")
PHONE = (
    "Processor\t: AArch64 Processor rev 14 (aarch64)\n"
    + "".join(core(number, "0xd05") for number in range(4))
    + "".join(core(number, "0xd41") for number in range(4, 8))
    + "Hardware\t: Qualcomm Technologies, Inc SM7325\n"
)
PHONE_WITHOUT_HARDWARE = "".join(
    core(number, part) for number, part in enumerate(["0xd46"] * 3 + ["0xd4d"] * 2 + ["0xd47"] * 2 + ["0xd4e"])
)
X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 143\nmodel name\t: Intel(R) Xeon(R) Platinum 8481C\n"


@pytest.mark.parametrize(
    ("cpuinfo", "device_tree", "expected"),
    [
        pytest.param(PI_3_OLD, "Raspberry Pi 3 Model B Rev 1.2\0", "Raspberry Pi 3 Model B Rev 1.2", id="Pi 3"),
        pytest.param(PI_4_OLD, None, "Raspberry Pi 4 Model B Rev 1.1", id="Pi 4 in a container"),
        pytest.param(PI_5, "Raspberry Pi 5 Model B Rev 1.0\0", "Raspberry Pi 5 Model B Rev 1.0", id="Pi 5"),
        pytest.param(
            JETSON,
            "NVIDIA Jetson AGX Orin Developer Kit\0",
            "NVIDIA Jetson AGX Orin Developer Kit",
            id="Jetson",
        ),
        pytest.param(JETSON, None, "Cortex-A78AE", id="Jetson in a container"),
        pytest.param(PHONE, None, "Qualcomm Technologies, Inc SM7325", id="phone"),
        pytest.param(
            PHONE_WITHOUT_HARDWARE, None, "Cortex-A510, Cortex-A715, Cortex-A710, Cortex-X3", id="phone, new kernel"
        ),
        pytest.param(core(0, "0xd0c"), None, "Neoverse-N1", id="Graviton 2"),
        pytest.param(core(0, "0xd40") + core(1, "0xd40"), None, "Neoverse-V1", id="Graviton 3"),
        pytest.param(core(0, "0xd4f"), None, "Neoverse-V2", id="Graviton 4"),
        pytest.param(core(0, "0xac3", implementer="0xc0"), None, "Ampere-1", id="another implementer"),
        pytest.param(core(0, "0xFFF"), None, "implementer 0x41 part 0xfff", id="a core of tomorrow"),
        pytest.param(X86, None, "Intel(R) Xeon(R) Platinum 8481C", id="x86"),
        pytest.param("processor\t: 0\n", "Board 4 Model B\0", "Board 4 Model B", id="a board alone"),
    ],
)
def test_the_most_telling_name_is_taken(tmp_path: Path, cpuinfo: str, device_tree: str | None, expected: str) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    if device_tree is not None:
        (tmp_path / "proc/device-tree/model").write_text(device_tree)
    assert cpu_model(tmp_path) == expected


def test_a_machine_that_says_nothing_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert cpu_model(tmp_path) == "unknown"


def test_implementers_and_parts_are_written_as_the_kernel_does() -> None:
    for implementer, parts in CORES.items():
        assert int(implementer, 16) < 0x100
        assert all(part == f"0x{int(part, 16):03x}" for part in parts)
