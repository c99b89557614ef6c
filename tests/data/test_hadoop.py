"""Images on a real Hadoop are those of a folder, and one that fails is one clear error without Java's traces."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from tests.data.hadoop import DATA_NODE, FOLDER, NAME_NODE, Cluster, find, running
from tests.data.stored_images import GIVEN, assert_embedded_alike, assert_told_alike, write_files
from tests.linear_bundle import write_bundle
from vit_deploy.data import hadoop
from vit_deploy.data.finding import find_source
from vit_deploy.errors import DataError, MissingEngineError, RemoteError

pytest.importorskip("pyarrow.fs")

TRACE = """hdfsGetPathInfo(/photos): getFileInfo error:
java.net.ConnectException: Call From a/127.0.0.1 to b:1 failed on connection exception; For more details see: …
\tat org.apache.hadoop.net.NetUtils.wrapWithMessage(NetUtils.java:792)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.pollConnect(Native Method)
\t... 17 more
"""


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (TRACE, "ConnectException: Connection refused"),
        ("Environment variable CLASSPATH not set!\ngetJNIEnv: getGlobalJNIEnv failed\n", "CLASSPATH not set"),
        (
            "loadFileSystems error:\n(unable to get stack trace for java.lang.NoClassDefFoundError exception: "
            "ExceptionUtils::getStackTrace error.)\n",
            "NoClassDefFoundError",
        ),
        ("2026-11-27 WARN util.NativeCodeLoader: Unable to load native-hadoop library\n", ""),
        (
            "hdfsListDirectory(/x): FileSystem#listStatus error:\n"
            "AccessControlException: Permission denied: user=bob"
            "org.apache.hadoop.security.AccessControlException: Permission denied: user=bob\n"
            "\tat org.apache.hadoop.hdfs.server.namenode.FSPermissionChecker.check(FSPermissionChecker.java:319)\n",
            "AccessControlException: Permission denied: user=bob",
        ),
    ],
)
def test_what_is_first_at_fault_is_said_without_the_trace(printed, expected):
    assert hadoop.reason(printed) == expected


def test_waiting_ends_but_for_those_who_say_otherwise():
    assert "ipc.client.ping=false" in hadoop.waiting(set())
    assert "ipc.client.ping=false" not in hadoop.waiting({"ipc.client.ping"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def cluster(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Hadoop that holds the files, which its own shell has put there."""
    found = find()
    if found is None:
        pytest.skip(f"needs a Hadoop that {FOLDER} or HADOOP_HOME names, and Java")
    with running(found, tmp_path_factory.mktemp("hadoop")) as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        cluster.shell("-put", *(str(path) for path in sorted(files.iterdir())), "/")
        yield cluster


def command(*arguments: object, cwd: Path, **more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "vit_deploy", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, cwd=cwd, env={**os.environ, **more}, text=True, **streams)


@pytest.mark.slow
@pytest.mark.parametrize("given", GIVEN)
def test_images_of_hdfs_are_those_of_a_folder(cluster, bundle, files, tmp_path, given):
    workers = 1 if given == "photos" else 0  # which has a Java of its own
    assert_embedded_alike(bundle, files, f"{cluster.address}/{given}", tmp_path, workers=workers)


@pytest.mark.slow
def test_classes_are_those_of_folders_in_hdfs(cluster, bundle, files):
    assert_told_alike(bundle, files, f"{cluster.address}/photos")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["hdfs:///photos", "hdfs://default/photos", "hdfs://somebody@127.0.0.1:{}/photos"])
def test_the_forms_of_an_address_lead_to_the_same_images(cluster, form):
    found, expected = find_source([form.format(cluster.port)]), find_source([f"{cluster.address}/photos"])
    assert [item.name for item in found.items()] == [item.name for item in expected.items()]
    assert "somebody" not in json.dumps(found.identity)


@pytest.mark.slow
def test_a_ray_cluster_reads_hdfs(cluster, bundle, files, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    vit_deploy.embed(bundle, files / "photos", tmp_path / "here.npy", workers=0, threads=1)
    sources = [f"{cluster.address}/{given}" for given in ("photos", "shards/*.tar.gz", "x.parquet")]
    vit_deploy.embed(bundle, sources, tmp_path / "there.npy", ray="local", threads=1)
    expected = np.tile(np.load(tmp_path / "here.npy"), (3, 1))
    np.testing.assert_array_equal(np.load(tmp_path / "there.npy"), expected)


@pytest.mark.slow
def test_what_is_not_in_hdfs_is_said(cluster, capfd):
    for given, expected in (
        ("absent", r"there is nothing at hdfs://127\.0\.0\.1:\d+/absent"),
        ("absent/*.png", r"there is nothing at hdfs://127\.0\.0\.1:\d+/absent"),
        ("photos/*.bmp", r"photos/\*\.bmp holds no images"),
        ("x.npz", r"there is nothing at hdfs://127\.0\.0\.1:\d+/x\.npz"),
        ("absent.tar", r"there is nothing at hdfs://127\.0\.0\.1:\d+/absent\.tar"),
        ("absent.parquet", r"there is nothing at hdfs://127\.0\.0\.1:\d+/absent\.parquet"),
    ):
        with pytest.raises(DataError, match=expected):
            find_source([f"{cluster.address}/{given}"])
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_what_belongs_to_somebody_else_is_no_missing_file(cluster):
    cluster.shell("-cp", "/photos", "/private")
    cluster.shell("-chmod", "700", "/private/1", "/private/2/*")
    other = f"hdfs://nobody@127.0.0.1:{cluster.port}/private"
    with pytest.raises(RemoteError, match=r"private/1 is not for these credentials: .*Permission denied"):
        find_source([other])
    for path in ("private/1/*.png", "private/1/005.png"):
        with pytest.raises(RemoteError, match="is not for these credentials") as error:
            find_source([f"hdfs://nobody@127.0.0.1:{cluster.port}/{path}"])
        assert "kinit" in error.value.fix
    [first, *_] = find_source([f"{other}/2"]).items()
    with pytest.raises(RemoteError, match="is not for these credentials"):
        first.read()


@pytest.mark.slow
def test_nothing_and_no_name_node_at_an_address_are_errors_within_seconds(cluster, tmp_path, bundle):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        address = f"hdfs://127.0.0.1:{closed.getsockname()[1]}"
        for given in (f"{address}/photos", f"{address}/photos/*.png", f"{address}/x.parquet", f"{address}/x.tar"):
            with pytest.raises(RemoteError, match="does not answer: ConnectException: Connection refused"):
                find_source([given])
        running = command("embed", bundle, "--data", f"{address}/photos", "-o", "f.npy", cwd=tmp_path)
        _, said = running.communicate(timeout=100)
    assert running.returncode == 2 and "does not answer" in said and "NameNode" in said
    assert "\tat " not in said and "Traceback" not in said and "WARN" not in said
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RemoteError, match="does not answer: UnknownHostException"):
        find_source(["hdfs://nowhere.invalid:8020/photos"])


@pytest.mark.slow
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 404 Not Found\r\n\r\n"])
def test_a_server_that_says_nothing_or_something_else_is_not_waited_for(cluster, answer):
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held.append(server.accept()[0])
            if answer:
                held[0].sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"hdfs://127.0.0.1:{server.getsockname()[1]}/photos?ipc.ping.interval=1000"
        with pytest.raises(RemoteError, match="does not answer"):
            find_source([address])
        thread.join()
        for link in held:
            link.close()


@pytest.mark.slow
@pytest.mark.parametrize("classes", ["", "nowhere.jar"])
def test_hadoops_classes_that_are_not_found_are_named(cluster, tmp_path, bundle, classes):
    given = ("embed", bundle, "--data", f"{cluster.address}/photos", "-o", "f.npy")
    if classes:
        running = command(*given, cwd=tmp_path, CLASSPATH=classes)
    else:
        running = subprocess.Popen(
            [sys.executable, "-m", "vit_deploy", *map(str, given)],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if name != "CLASSPATH"},
            text=True,
            stderr=subprocess.PIPE,
        )
    _, said = running.communicate(timeout=100)
    assert running.returncode == 2, said
    assert "Java does not find its classes" in said and "hadoop classpath --glob" in said and "\tat " not in said


# What ends what it has of a part at once, so that there is one soon.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from vit_deploy import cli
from vit_deploy.data import embedding
embedding.PART_S = 0.0
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_interrupt_ends_a_run_in_order(cluster, tmp_path, bundle):
    data = [word for _ in range(100) for word in ("--data", f"{cluster.address}/photos")]
    words = ["embed", str(bundle), *data, "-o", "f.npy", "--batch", "1", "--workers", "0"]
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    while running.poll() is None and not list(tmp_path.glob("f.npy.parts/part-*")):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 130 and "interrupted" in said and "Traceback" not in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["f.npy.parts"]


def test_an_error_of_classes_is_one_of_an_engine():
    from vit_deploy.data import storage_errors
    from vit_deploy.data.addresses import parsed

    expected = pytest.raises(MissingEngineError, match="Java does not find its classes: NoClassDefFoundError")
    with expected, storage_errors.explained(parsed("hdfs://host/x")):
        raise OSError("NoClassDefFoundError: org/apache/hadoop/fs/FileSystem")


@pytest.mark.slow
def test_servers_that_end_in_the_middle_end_the_run_and_break_no_image(cluster, bundle, tmp_path, monkeypatch, capfd):
    """The last one here, as nothing runs after it."""
    from vit_deploy.data import embedding

    monkeypatch.setattr(embedding, "PART_S", 0.0)
    for server in (DATA_NODE, NAME_NODE):

        def ending(doing: str, server: str = server) -> None:
            if " images, " in doing and "8 of" in doing:
                cluster.end(server)

        options = {"workers": 0, "batch": 4, "streams": 1, "progress": ending, "force": True}
        with pytest.raises(RemoteError, match="does not answer"):
            vit_deploy.embed(bundle, f"{cluster.address}/photos", tmp_path / "f.npy", **options)
        assert len(list((tmp_path / "f.npy.parts").glob("part-*"))) >= 1
        assert not (tmp_path / "f.npy").exists()
    assert "\tat " not in capfd.readouterr().err
