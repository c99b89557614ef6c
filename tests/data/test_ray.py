"""A Ray cluster gives what one process gives, bit for bit, whatever happens to its workers."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.linear_bundle import CLASSES, write_bundle
from tests.runtimes.linear_onnx import write_model
from vit_deploy import checkpoints
from vit_deploy.cli import with_addresses
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.weights import draw_weights
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
def test_agreement_with_another_model_is_that_of_one_process(cluster, bundle, photos, tmp_path):
    config = read_artifact(bundle).config
    other = Checkpoint(config, dict(draw_weights(config, 1)), Preprocess.for_channels(3))
    checkpoints.save(other, tmp_path / "other.safetensors")
    for against in (tmp_path / "other.safetensors", write_bundle(tmp_path / "second")):
        here = vit_deploy.evaluate(bundle, photos, batch=7, against=against, workers=0, threads=1)
        there = vit_deploy.evaluate(bundle, photos, batch=7, against=against, ray="local", threads=1)
        assert there.records == here.records
        assert there.records[0]["against"]["model"] == str(against)


@pytest.mark.slow
def test_accuracy_of_features_is_that_of_one_process(cluster, bundle, photos, tmp_path):
    artifact = read_artifact(bundle)
    config = artifact.config.replace(include_top=False, num_classes=0, pooling="cls")
    weight = np.random.default_rng(2).standard_normal((6 * 5 * 3, config.embed_dim)).astype(np.float32)
    folders = [tmp_path / "one", tmp_path / "two"]
    for noise, folder in enumerate(folders):
        shutil.copytree(bundle, folder)
        headless = dataclasses.replace(artifact, directory=folder, config=config)
        write_manifest(write_model(headless, weight + np.float32(noise), output="features"))
    pixels = np.random.default_rng(1).integers(0, 256, (90, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "train.npz", images=pixels, labels=np.arange(90) % CLASSES)
    for train in (None, tmp_path / "train.npz"):
        if train is not None:  # classes by number, as the training images have them
            photos = tmp_path / "train.npz"
        here = vit_deploy.evaluate(folders, photos, batch=7, train=train, workers=0, threads=1)
        there = vit_deploy.evaluate(folders, photos, batch=7, train=train, ray="local", threads=1)
        assert there.records == here.records
        assert here.records[0]["features"]["knn"] > 0


@pytest.mark.slow
def test_files_that_are_read_from_their_beginning_are_too(cluster, bundle, photos, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from vit_deploy.data import cluster as over

    files = sorted(photos.rglob("*.png"))
    parts = {"a.tar.gz": files[:130], "b.tar.zst": files[130:290], "c.parquet": files[290:]}
    for name, held in list(parts.items())[:2]:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz" if name.endswith("gz") else "w") as archive:
            for path in held:
                archive.add(path, path.name)
        content = stream.getvalue()
        (tmp_path / name).write_bytes(content if name.endswith("gz") else pa.compress(content, "zstd", asbytes=True))
    contents = [path.read_bytes() for path in parts["c.parquet"]]
    pq.write_table(pa.table({"image": contents}), tmp_path / "c.parquet", row_group_size=7)
    sources = [tmp_path / name for name in parts]
    vit_deploy.embed(bundle, sources, tmp_path / "here.npy", workers=0, threads=1)
    assert len(np.load(tmp_path / "here.npy")) == COUNT
    monkeypatch.setattr(over, "WINDOW", 5)  # groups; workers start again after them
    vit_deploy.embed(bundle, sources, tmp_path / "ray.npy", ray="local", threads=1)
    assert (tmp_path / "ray.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()


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
@pytest.mark.parametrize("address", ["nowhere.invalid:6379", "127.0.0.1:{port}", "head", ""])
def test_an_address_at_which_nothing_listens_is_refused_at_once(address):
    pytest.importorskip("ray")
    from vit_deploy.data.cluster import _check_answers

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        given = address.format(port=closed.getsockname()[1])
        with pytest.raises(UsageError, match=r"no Ray cluster answers at|is no address of a Ray cluster"):
            _check_answers(given)


@pytest.mark.slow
def test_rays_own_client_over_which_ray_data_does_not_run_is_refused(monkeypatch):
    pytest.importorskip("ray")
    from vit_deploy.data.cluster import _check_answers

    with pytest.raises(UsageError, match="ray://head:10001 is an address of Ray's own client") as error:
        _check_answers("ray://head:10001")
    assert "--ray auto" in error.value.fix
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match="Ray Data, which spreads the images, does not run over it"):
        _check_answers("auto")


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_server_that_is_no_cluster_is_refused_before_ray_tries_for_minutes(monkeypatch, answer):
    pytest.importorskip("ray")
    from vit_deploy.data import cluster as over

    monkeypatch.setattr(over, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def serve() -> None:
            held.append(server.accept()[0])
            if answer:
                held[0].sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(UsageError, match="no Ray cluster answers at"):
            over._check_answers(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
        held[0].close()


@pytest.mark.slow
def test_a_cluster_is_known_by_its_answer(cluster):
    import ray

    from vit_deploy.data.cluster import _check_answers

    _check_answers(ray.get_runtime_context().gcs_address)


@pytest.mark.slow
def test_what_no_cluster_can_do_is_refused(cluster, bundle, photos, tmp_path):
    with pytest.raises(UsageError, match="no node of the cluster has room for a worker: 3 CPUs"):
        vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local", threads=3)
    with pytest.raises(UsageError, match="--workers decode for this process"):
        vit_deploy.embed(bundle, photos, tmp_path / "f.npy", ray="local", workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_runs_on_a_cluster_by_its_address(cluster, bundle, photos, tmp_path):
    import ray

    from vit_deploy.data.cluster import LOOPBACK_ALONE

    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "vit_deploy", "embed", str(bundle), "--data", str(photos), "--threads", "1"]
    reached = {**os.environ, LOOPBACK_ALONE: "0"}  # as the cluster, which no other machine reaches
    for more in (["--workers", "0", "-o", "here.npy"], ["--ray", address, "-o", "there.npy"]):
        done = subprocess.run([*command, *more], cwd=tmp_path, env=reached, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1, done.stderr  # some are broken
    assert (tmp_path / "there.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()


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


@pytest.mark.slow
def test_faults_go_where_they_went_before_a_cluster_was_joined():
    """Java's machine, which reads hdfs here, ends the process where Ray takes faults over."""
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    program = """
import ctypes, faulthandler, signal
from vit_deploy.data.cluster import _connected
def handler(name):
    found = (ctypes.c_void_p * 64)()  # the function comes first
    ctypes.CDLL(None).sigaction(int(getattr(signal, name)), None, found)
    return found[0]
names = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
faulthandler.enable()  # as Java's machine does
before = list(map(handler, names))
with _connected("local"):
    assert list(map(handler, names)) == before
assert list(map(handler, names)) == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
