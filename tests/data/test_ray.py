"""A Ray cluster gives what one process gives, bit for bit, whatever happens to its workers."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.linear_bundle import CLASSES, write_bundle
from vit_deploy.cli import with_addresses
from vit_deploy.errors import MissingEngineError, UsageError

COUNT = 400
BROKEN = (5, 333)
# Read by every Python that Ray starts: it knows no ONNX Runtime while a file says so.
HOOK = """
import importlib.util, os
found = importlib.util.find_spec
def find(name, package=None):
    return None if name == "onnxruntime" and os.path.exists({switch!r}) else found(name, package)
importlib.util.find_spec = find
"""


def test_a_bare_option_starts_a_cluster_here():
    assert with_addresses(["embed", "--ray", "-o", "f.npy"]) == ["embed", "--ray=local", "-o", "f.npy"]
    assert with_addresses(["embed", "--ray", "artifact"]) == ["embed", "--ray=local", "artifact"]
    assert with_addresses(["embed", "--ray"]) == ["embed", "--ray=local"]
    for address in ("auto", "local", "10.0.0.1:6379", "ray://head:10001"):
        assert with_addresses(["--ray", address]) == ["--ray", address]


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file; while it is there, workers have no ONNX Runtime."""
    return tmp_path_factory.mktemp("hook") / "without-onnxruntime"


@pytest.fixture(scope="module")
def cluster(switch: Path) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    pytest.importorskip("pandas")
    (switch.parent / "sitecustomize.py").write_text(HOOK.format(switch=str(switch)))
    root = Path(vit_deploy.__file__).parents[1]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(switch.parent), str(root), before]))
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    from vit_deploy.data.cluster import _reached_from_here

    with _reached_from_here(True):
        ray.init(num_cpus=2, object_store_memory=100 << 20, **quiet)
    yield
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    for place in range(COUNT):
        path = folder / str(place % CLASSES) / f"{place:03}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(path)
        if place in BROKEN:
            path.write_bytes(b"broken")
    return folder


def children() -> list[int]:
    """Processes that this one has started."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def workers() -> list[int]:
    """Processes of the pool, of any Ray on this machine that this process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::MapWorker"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_cluster_here_is_reached_from_here_alone(cluster):
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    if shutil.which("ss") is None:
        pytest.skip("needs ss")
    said = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True).stdout
    ours = [line.split() for line in said.splitlines() if any(f"pid={pid}," in line for pid in children())]
    assert ours and all("127.0.0.1" in fields[3] or "[::1]" in fields[3] for fields in ours), said


@pytest.mark.slow
def test_rows_are_those_of_one_process_although_a_worker_is_killed(cluster, bundle, photos, tmp_path):
    vit_deploy.embed(bundle, photos, tmp_path / "here.npy", workers=0, threads=1)
    killed = []

    def kill(doing: str) -> None:
        if not killed and " images, " in doing and workers():
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    found = vit_deploy.embed(bundle, photos, tmp_path / "ray.npy", ray="local", threads=1, progress=kill)
    assert killed and found.result.images == COUNT and found.result.broken == len(BROKEN)
    assert (tmp_path / "ray.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()


@pytest.mark.slow
def test_figures_and_predictions_are_those_of_one_process(cluster, bundle, photos, tmp_path):
    here = vit_deploy.evaluate(bundle, photos, batch=7, workers=0, threads=1)
    there = vit_deploy.evaluate(bundle, photos, batch=7, ray="local", threads=1)
    assert there.records == here.records and not there.ok
    pixels = np.random.default_rng(1).integers(0, 256, (90, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(90) % CLASSES)
    here = vit_deploy.evaluate(bundle, tmp_path / "x.npz", threads=1)
    assert vit_deploy.evaluate(bundle, tmp_path / "x.npz", ray="local", threads=1).records == here.records
    plain = vit_deploy.predict(bundle, photos / "1", threads=1, workers=0)
    assert list(vit_deploy.predict(bundle, photos / "1", ray="local", threads=1)) == list(plain)


@pytest.mark.slow
def test_a_run_that_was_ended_goes_on_over_ray(cluster, bundle, photos, tmp_path, monkeypatch):
    from vit_deploy.data import embedding

    monkeypatch.setattr(embedding, "PART_S", 0.0)
    vit_deploy.embed(bundle, photos, tmp_path / "whole.npy", workers=0)

    def interrupt(doing: str) -> None:
        if " images, " in doing and "100%" not in doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local", progress=interrupt)
    found = vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local")
    assert 0 < found.result.resumed < COUNT
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.slow
def test_a_node_without_the_engine_is_one_error(cluster, bundle, photos, tmp_path, switch):
    switch.touch()
    try:
        with pytest.raises(MissingEngineError, match=r"on the node [\d.]+: .*needs onnxruntime") as error:
            vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local")
    finally:
        switch.unlink()
    assert "pip install" in error.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_no_cluster_can_do_is_refused(cluster, bundle, photos, tmp_path):
    with pytest.raises(UsageError, match="no node of the cluster has room for a worker: 3 CPUs"):
        vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local", threads=3)
    with pytest.raises(UsageError, match="--workers decode for this process"):
        vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local", workers=1)
    with pytest.raises(UsageError, match="--against and --ray"):
        vit_deploy.evaluate(bundle, photos, against=bundle, ray="local")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own_that_imports_nothing_from_the_working_directory(
    bundle, photos, tmp_path
):
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    for name in ("PIL", "numpy", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the working directory')\n")
    command = [sys.executable, "-P", "-m", "vit_deploy", "embed", str(bundle), "--data", str(photos / "0")]
    done = subprocess.run(
        [*command, "--ray", "--json", "-o", "f.npy"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["images"] == COUNT // CLASSES
    assert "Traceback" not in done.stderr
