from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vit_deploy.core import staging
from vit_deploy.core.staging import check_targets, explained_os_errors, staged_file, staged_folder
from vit_deploy.errors import OutputError

# Stages a folder, tells its name, and works until it is stopped.
WORKER = """
import sys
from pathlib import Path
from vit_deploy.core.staging import staged_folder
with staged_folder(Path(sys.argv[1]), force="force" in sys.argv) as stage:
    (stage.folder / "model.bin").write_bytes(b"half")
    print(stage.folder, flush=True)
    sys.stdin.readline()
"""
HANG_S = 600  # that no process takes, however busy the machine is

# Is killed in the middle of an exchange: after the old target has gone and before the new one has come.
KILLED_IN_EXCHANGE = """
import os, signal, sys
from pathlib import Path
from vit_deploy.core.staging import staged_folder
with staged_folder(Path(sys.argv[1]), force=True) as stage:
    (stage.folder / "model.bin").write_bytes(b"new")
    rename = Path.rename
    def killing(self, target):
        if self == stage.folder:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)
    Path.rename = killing
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def hidden(folder: Path) -> list[Path]:
    return sorted(folder.glob(".vit-deploy-*"))


def started(target, *options):
    command = [sys.executable, "-c", WORKER, target, *options]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def worker(target, *options):
    process = started(target, *options)
    try:
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()


def test_the_target_appears_whole_when_the_work_is_done(tmp_path):
    target = tmp_path / "made" / "on demand" / "bundle"
    with staged_folder(target) as stage:
        (stage.folder / "model.bin").write_bytes(b"whole")
        assert not target.exists()
        assert stage.folder.parent == target.parent  # on the same disk, so that a rename is enough
    assert (target / "model.bin").read_bytes() == b"whole"
    assert names(target.parent) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), SystemExit(143)])
def test_an_error_leaves_nothing_behind_not_even_folders_that_were_made(tmp_path, error):
    with pytest.raises(type(error)), staged_folder(tmp_path / "a" / "b" / "bundle") as stage:
        (stage.folder / "model.bin").write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_made_folders_stay_if_something_else_is_in_them(tmp_path):
    with pytest.raises(ValueError, match="bug"), staged_folder(tmp_path / "a" / "b" / "bundle"):
        (tmp_path / "a" / "note").write_text("mine")
        raise ValueError("bug")
    assert names(tmp_path / "a") == ["note"]


def test_an_existing_target_is_refused_before_the_work(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    targets = [tmp_path / name for name in ("one", "two", "dangling", "free")]
    with pytest.raises(OutputError) as caught:
        check_targets(targets, force=False)
    assert caught.value.message == f"already there: {', '.join(map(str, targets[:3]))}"
    assert "--force" in caught.value.fix
    check_targets(targets, force=True)
    with pytest.raises(OutputError), staged_folder(targets[0]):
        pytest.fail("the work began")
    assert hidden(tmp_path) == []


def test_with_force_the_old_target_stays_until_the_new_one_is_done(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old.bin").write_text("old")
    with pytest.raises(ValueError, match="bug"), staged_folder(target, force=True):
        raise ValueError("bug")
    assert names(target) == ["old.bin"]
    with staged_folder(target, force=True) as stage:
        (stage.folder / "new.bin").write_text("new")
        assert names(target) == ["old.bin"]
    assert names(target) == ["new.bin"]
    assert names(tmp_path) == ["bundle"]


def test_a_file_or_a_link_in_the_targets_place_is_replaced_and_what_it_points_to_is_left_alone(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "file").write_text("old")
    for name in ("link", "file"):
        with staged_folder(tmp_path / name, force=True) as stage:
            (stage.folder / "new.bin").write_text("new")
        assert (tmp_path / name).is_dir() and not (tmp_path / name).is_symlink()
        assert names(tmp_path / name) == ["new.bin"]
    assert (elsewhere / "precious").read_text() == "mine"
    assert hidden(tmp_path) == []


def test_a_target_in_a_linked_folder_lands_behind_the_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with staged_folder(tmp_path / "link" / "bundle"):
        pass
    assert (tmp_path / "real" / "bundle").is_dir()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no folders")
def test_a_place_that_takes_no_folders_is_refused():
    with pytest.raises(OutputError, match="cannot write /proc"), staged_file(Path("/proc/a.bin")):
        raise AssertionError


def test_a_target_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    target = tmp_path / "file" / "deeper" / "bundle"
    for force in (False, True):
        with pytest.raises(OutputError, match="cannot write below a file") as caught:
            check_targets([target], force=force)
        assert str(target) in caught.value.message
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="cannot write below a file"), staged_folder(tmp_path / "dangling" / "x"):
        pass


def test_a_name_that_no_file_can_have_is_an_error_of_the_output(tmp_path):
    with pytest.raises(OutputError, match="File name too long"), staged_folder(tmp_path / ("n" * 300) / "bundle"):
        pass
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError), staged_folder(loop / "bundle"):
        pass
    assert hidden(tmp_path) == []


def test_a_stage_can_be_published_under_another_name_or_not_at_all(tmp_path):
    with staged_folder(tmp_path / "bundle") as stage:
        (stage.folder / "model.bin").write_text("wrong")
        stage.divert(tmp_path / "bundle.failed")
    assert names(tmp_path) == ["bundle.failed"]
    with staged_folder(tmp_path / "bundle") as stage:
        stage.divert(None)
    assert names(tmp_path) == ["bundle.failed"]


def test_what_another_run_published_meanwhile_is_not_overwritten(tmp_path):
    for staged in (staged_folder, staged_file):
        target = tmp_path / staged.__name__
        with pytest.raises(OutputError, match="already there"), staged(target) as mine:
            if staged is staged_file:
                mine.write_text("mine")
            target.write_text("the other's")
        assert target.read_text() == "the other's"
    assert hidden(tmp_path) == []


def test_a_file_appears_whole_and_an_error_keeps_the_old_one(tmp_path):
    target = tmp_path / "made" / "model.keras"
    with staged_file(target) as path:
        assert path.name == "model.keras"
        path.write_text("first")
        assert not target.exists()
    with pytest.raises(OutputError, match="already there"), staged_file(target):
        pytest.fail("the work began")
    with pytest.raises(ValueError, match="bug"), staged_file(target, force=True) as path:
        path.write_text("half")
        raise ValueError("bug")
    assert target.read_text() == "first"
    with staged_file(target, force=True) as path:
        path.write_text("second")
    assert target.read_text() == "second"
    assert names(target.parent) == ["model.keras"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_a_files_place_is_never_replaced(tmp_path, force):
    with pytest.raises(OutputError) as caught, staged_file(tmp_path, force=force):
        pass
    assert caught.value.message == f"{tmp_path} is a folder"
    assert caught.value.fix == "give a file name"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told_with_what_is_free(tmp_path, code):
    with pytest.raises(OutputError) as caught, staged_folder(tmp_path / "a" / "bundle"):
        raise OSError(code, os.strerror(code))
    assert caught.value.message.startswith(f"no space left while writing {tmp_path / 'a' / 'bundle'} (")
    assert caught.value.message.endswith(" MB free)")
    assert caught.value.fix == "free some space or write elsewhere"
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch, code):
    def refuse(self, *_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", refuse)
    for staged in (staged_folder, staged_file):
        with pytest.raises(OutputError, match="no permission to write") as caught, staged(tmp_path / "bundle"):
            pass
        assert caught.value.fix == "choose another output folder"


def test_other_failures_of_the_file_system_are_not_explained_away(tmp_path):
    with pytest.raises(FileNotFoundError), explained_os_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "a bug")


@pytest.fixture
def small_disk(tmp_path):
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_really_full_disk_is_told_and_left_empty(small_disk):
    full = pytest.raises(OutputError, match=r"no space left while writing .* \(0 MB free\)")
    with full, staged_folder(small_disk / "a" / "bundle") as stage:
        (stage.folder / "model.bin").write_bytes(bytes(10**6))
    assert names(small_disk) == []


def test_a_stopped_run_cleans_up_and_a_killed_one_is_cleaned_up_after(tmp_path):
    target = tmp_path / "out" / "bundle"
    with worker(target) as (process, folder):
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG_S) not in (0, None)
    assert not folder.exists() and names(tmp_path) == []

    with worker(target) as (process, folder):
        process.kill()
        process.wait(HANG_S)
        assert folder.exists() and not target.exists()
    with staged_folder(target) as stage:
        assert not folder.exists()
        assert hidden(target.parent) == [stage.folder]
    assert names(target.parent) == ["bundle"]


def test_a_run_that_still_works_is_left_alone(tmp_path):
    with worker(tmp_path / "one") as (process, folder):
        with staged_folder(tmp_path / "two") as stage:
            assert set(hidden(tmp_path)) == {folder, stage.folder}
        assert (folder / "model.bin").read_bytes() == b"half"
        assert process.poll() is None


def test_runs_in_one_process_leave_each_other_alone(tmp_path):
    with staged_folder(tmp_path / "one") as one, staged_folder(tmp_path / "two") as two:
        (one.folder / "model.bin").write_text("one")
        (two.folder / "model.bin").write_text("two")
    assert [(tmp_path / name / "model.bin").read_text() for name in ("one", "two")] == ["one", "two"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_a_run_killed_in_the_exchange_loses_neither(tmp_path, kind):
    target = tmp_path / "bundle"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("old")
    if kind == "folder":
        target.mkdir()
        (target / "model.bin").write_bytes(b"old")
    elif kind == "file":
        target.write_text("old")
    else:
        target.symlink_to(elsewhere)
    done = subprocess.run([sys.executable, "-c", KILLED_IN_EXCHANGE, target])
    assert done.returncode == -signal.SIGKILL
    assert not os.path.lexists(target)
    with staged_folder(tmp_path / "another"):
        pass
    assert (target / "model.bin" if kind == "folder" else target).read_text() == "old"
    assert names(tmp_path) == ["another", "bundle", "elsewhere"]


def test_an_exchange_that_fails_puts_the_old_target_back(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "model.bin").write_bytes(b"old")
    rename = Path.rename
    with pytest.raises(KeyboardInterrupt), staged_folder(target, force=True) as stage:

        def interrupted(self, to):
            if self == stage.folder:
                raise KeyboardInterrupt
            return rename(self, to)

        monkeypatch.setattr(Path, "rename", interrupted)
    assert (target / "model.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["bundle"]


def test_what_was_set_aside_goes_if_the_exchange_was_complete(tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / f"{staging.ASIDE}bundle").mkdir()
    (tmp_path / f"{staging.ASIDE}bundle" / "old.bin").write_text("old")
    with staged_folder(tmp_path / "another"):
        pass
    assert names(tmp_path) == ["another", "bundle"]
    assert names(tmp_path / "bundle") == []


def test_many_runs_at_once_all_arrive(tmp_path):
    runs = [started(tmp_path / "out" / str(i)) for i in range(6)]
    assert len({run.stdout.readline() for run in runs}) == 6  # all of them work, each in a folder of its own
    for run in runs:
        run.communicate("done\n", timeout=HANG_S)
    assert [run.returncode for run in runs] == [0] * 6
    assert names(tmp_path / "out") == list("012345")


@pytest.fixture
def no_locks(monkeypatch):
    """A disk that refuses every lock, as many network shares do."""
    fcntl = pytest.importorskip("fcntl")

    def refused(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(staging, "_told", [])


def test_a_disk_without_locks_is_written_to_all_the_same_and_that_is_said_once(no_locks, tmp_path, capsys):
    with staged_folder(tmp_path / "a") as stage:
        (stage.folder / "file").write_text("whole")
    with staged_file(tmp_path / "b.txt") as path:
        path.write_text("whole")
    with staged_folder(tmp_path / "a", force=True) as stage:
        (stage.folder / "file").write_text("replaced")
    assert names(tmp_path) == ["a", "b.txt"] and (tmp_path / "a" / "file").read_text() == "replaced"
    assert capsys.readouterr().err.count("without locks") == 1


def test_without_locks_what_another_run_works_on_is_left_alone(no_locks, tmp_path):
    other, aside = tmp_path / ".vit-deploy-1-abc", tmp_path / ".vit-deploy-replaced-a"
    other.mkdir()
    aside.mkdir()
    with staged_file(tmp_path / "b.txt") as path:
        path.write_text("whole")
    assert other.is_dir() and aside.is_dir()


def test_what_a_lock_fails_with_besides_is_no_reason_to_go_on(monkeypatch, tmp_path):
    fcntl = pytest.importorskip("fcntl")

    def broken(descriptor, how):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Bad file"), staged_file(tmp_path / "b.txt"):
        pass
