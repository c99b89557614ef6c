"""The emulator is fetched whole or not at all, and is a machine as one that ssh reaches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.mirror import Mirror, archive, deb, prepare, served
from vit_deploy.errors import ConfigError, MissingEngineError, RemoteError
from vit_deploy.remote.emulation import download, setup
from vit_deploy.remote.emulation.debian import unpack
from vit_deploy.remote.emulation.machine import emulated_machine


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with served(archive()) as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    return prepare(monkeypatch, tmp_path / "a cache")


def test_the_parts_that_are_needed_are_fetched_once(mirror: Mirror, cache: Path) -> None:
    told: list[str] = []
    emulator = setup.set_up(mirror=f"{mirror.url}/", note=told.append)
    assert told[0].startswith("fetching about ") and str(cache) in told[0]
    assert emulator.folder == cache / "emulator"
    unpacked = {path.relative_to(emulator.folder).as_posix() for path in emulator.folder.rglob("*") if path.is_file()}
    assert unpacked == {
        "about.json",
        "python",
        "qemu/usr/bin/qemu-aarch64",
        *(f"system/usr/bin/{name}" for name in ("python3", "python3.13")),
        *(f"system/usr/lib/{name}" for name in ("stdlib", "libstdc++", "libc.so", "libgcc")),
    }
    assert (emulator.folder / "system/lib/libc.so").read_bytes() == b"C"
    assert emulator.main_versions == {"QEMU": "1:9", "Python": "1:18", "numpy": "2.0"}
    assert setup.installed() == emulator
    assert not any("dpkg" in path or "sparc" in path for path, _ in mirror.asked)
    mirror.asked.clear()
    assert setup.set_up(mirror=mirror.url, note=told.append) == emulator
    assert len(told) == 1 and not any(path.startswith("pool/") for path, _ in mirror.asked)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(mirror: Mirror) -> None:
    path = "pool/qemu-user_1_amd64.deb"
    mirror.cut[path] = [100, 57]
    setup.set_up(mirror=mirror.url, note=lambda text: None)
    assert [ranged for asked, ranged in mirror.asked if asked == path] == [None, "bytes=100-", "bytes=157-"]


def test_what_an_earlier_run_left_is_continued(mirror: Mirror, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "pool/libc6_1_arm64.deb"
    mirror.cut[path] = [40] + [0] * (download.TRIES - 1)
    with pytest.raises(RemoteError, match=r"libc6_1_arm64\.deb cannot be had"):
        setup.set_up(mirror=mirror.url, note=lambda text: None)
    with pytest.raises(MissingEngineError):
        setup.installed()
    fetched = {asked for asked, _ in mirror.asked if asked.startswith("pool/")} - {path}
    mirror.asked.clear()
    setup.set_up(mirror=mirror.url, note=lambda text: None)
    assert (path, "bytes=40-") in mirror.asked
    assert not fetched & {asked for asked, _ in mirror.asked}


@pytest.mark.parametrize("beginning", [b"", b"of another file, which is longer than this one is" * 99])
def test_a_file_with_another_digest_is_refused(mirror: Mirror, cache: Path, beginning: bytes) -> None:
    path = "pool/libc6_1_arm64.deb"
    mirror.files[path] = beginning + mirror.files[path][:-1] + b"?"
    with pytest.raises(RemoteError, match=r"libc6_1_arm64\.deb has the digest \w{16}…; expected \w{16}…"):
        setup.set_up(mirror=mirror.url, note=lambda text: None)
    assert not list(cache.rglob("libc6*"))


def test_a_beginning_of_another_file_is_fetched_anew(mirror: Mirror, cache: Path) -> None:
    left = cache / "emulator/packages/libc6_1_arm64.deb.part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"?" * 10_000)  # longer than the file itself
    assert setup.set_up(mirror=mirror.url, note=lambda text: None).python.exists()


def test_an_index_that_was_changed_is_refused(mirror: Mirror) -> None:
    path = next(name for name in mirror.files if name.endswith("binary-arm64/Packages.xz"))
    mirror.files[path] += b"?"
    with pytest.raises(RemoteError, match=r"Packages\.xz has the digest"):
        setup.set_up(mirror=mirror.url, note=lambda text: None)


def test_a_mirror_without_the_archive_is_said(mirror: Mirror) -> None:
    with pytest.raises(RemoteError, match="InRelease answers 404") as caught:
        setup.set_up(mirror=f"{mirror.url}/nowhere", note=lambda text: None)
    assert caught.value.fix == "name another mirror"


def test_a_package_of_another_packing_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "new.deb"
    package.write_bytes(deb({"file": b"?"}, "data.tar.zst"))
    with pytest.raises(RemoteError, match=r"has no data\.tar\.xz"):
        unpack(package, tmp_path)


def test_other_machines_are_told_that_it_runs_on_linux(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.platform, "machine", lambda: "riscv64")
    with pytest.raises(RemoteError, match="runs on Linux, on x86_64 and aarch64") as caught:
        setup.set_up(mirror=mirror.url, note=lambda text: None)
    assert "--on ssh://" in caught.value.fix


def test_an_address_names_a_cpu_that_qemu_knows(mirror: Mirror) -> None:
    with pytest.raises(MissingEngineError) as missing:
        emulated_machine("qemu://cortex-a76")
    assert missing.value.fix == "vit-deploy emulator setup"
    setup.set_up(mirror=mirror.url, note=lambda text: None)
    assert str(emulated_machine("qemu://cortex-a76/")) == "qemu://cortex-a76"
    with pytest.raises(ConfigError, match="no CPU 'cortex-a75'; expected one of cortex-a53, cortex-a76") as unknown:
        emulated_machine("qemu://cortex-a75")
    assert unknown.value.fix == "did you mean 'cortex-a76'?"
    for odd in ("qemu://", "qemu://a b", "qemu://;ls", "qemu:cortex-a76", "qemu://cortex-a76/x"):
        with pytest.raises(ConfigError, match="no address of an emulated machine"):
            emulated_machine(odd)
