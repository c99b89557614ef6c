"""Images on s3 and gs are those of a folder, and a storage that fails is one clear error."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from tests.data.stored_images import GIVEN, assert_embedded_alike, assert_told_alike, write_files
from tests.linear_bundle import write_bundle
from vit_deploy.data import addresses
from vit_deploy.data.finding import find_source
from vit_deploy.errors import DataError, MissingEngineError, RemoteError, UsageError

fs = pytest.importorskip("pyarrow.fs")

BUCKET = "bucket"
GOOGLE = ("start", "--host=127.0.0.1", "--port={port}", "--in-memory", "--default-bucket=bucket")
SERVERS = {
    "s3": ("moto", ["-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}"]),
    "gs": ("gcp_storage_emulator", ["-m", "gcp_storage_emulator", *GOOGLE]),
}
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.mark.parametrize(
    ("text", "shown", "name"),
    [
        ("s3://key:secret@bucket/a%20b/c.png?scheme=http", "s3://bucket/a b/c.png", "c.png"),
        ("s3://bucket/img-?.png", "s3://bucket/img-?.png", "img-?.png"),
        ("gs://anonymous@bucket", "gs://bucket/", "bucket"),
        ("hdfs://host:8020/user/x/", "hdfs://host:8020/user/x/", "x"),
    ],
)
def test_an_address_is_shown_without_its_password(text, shown, name):
    assert (addresses.parsed(text).shown, addresses.parsed(text).name) == (shown, name)
    assert addresses.parsed(str(addresses.parsed(text))) == addresses.parsed(text)


def test_nothing_is_written_to_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output in ("s3://bucket/f.npy", Path("gs://bucket/f.parquet")):
        with pytest.raises(UsageError, match="is written on this computer") as error:
            vit_deploy.embed(tmp_path, tmp_path, output)
        assert "copy" in error.value.fix
    assert list(tmp_path.iterdir()) == []


def test_hdfs_without_its_library_is_one_error_that_names_it(monkeypatch, tmp_path):
    if {"HADOOP_HOME", "ARROW_LIBHDFS_DIR", "VIT_DEPLOY_HADOOP"} & set(os.environ):
        pytest.skip("has Hadoop")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingEngineError, match=r"libjvm|libhdfs") as error:
        find_source(["hdfs://127.0.0.1:1/photos"])
    assert "CLASSPATH" in error.value.fix


def test_a_file_system_that_nobody_knows_is_refused():
    with pytest.raises(DataError, match=r"ftp:// is no file system that pyarrow reads"):
        find_source(["ftp://host/photos"])


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        ("AWS Error ACCESS_DENIED during ListObjectsV2 operation", RemoteError, "is not for these credentials"),
        ("UNAVAILABLE: Could not create a OAuth2 access token", RemoteError, "is not for these credentials"),
        ("AWS Error NETWORK_CONNECTION during HeadObject operation", RemoteError, "does not answer"),
        ("UNAVAILABLE: Retry policy exhausted: CURL error [7]", RemoteError, "does not answer"),
        ("AWS Error NO_SUCH_BUCKET during ListObjectsV2", DataError, "there is no bucket bucket"),
        ("Unable to load libhdfs: ./libhdfs.so: cannot open", MissingEngineError, "Hadoop's libhdfs"),
        ("Unable to load libjvm dlopen(libjvm.so)", MissingEngineError, "Java's libjvm"),
        ("Prior attempt to load libhdfs failed", MissingEngineError, "Hadoop's libhdfs"),
        ("something else", RemoteError, "cannot be read: something else"),
        ("Cannot parse URI: 's3://k:secret@bucket/'", RemoteError, "Cannot parse URI: 's3://bucket/'"),
    ],
)
def test_what_a_storage_says_becomes_one_clear_error(said, kind, expected):
    from vit_deploy.data import storage

    with pytest.raises(kind, match=expected) as error, storage.explained(addresses.parsed("s3://k:secret@bucket/x")):
        raise OSError(said)
    assert error.value.fix and "secret" not in error.value.message and len(error.value.message) < 500


def test_a_slash_in_a_password_is_refused_without_showing_it():
    with pytest.raises(DataError, match="an address of s3:// has a slash in its user or password") as error:
        addresses.parsed("s3://k:sec/ret@bucket/x")
    assert "sec" not in error.value.message.replace("user or password", "") and "%2F" in error.value.fix
    assert addresses.parsed("hdfs://host:8020/a@b.png").path == "a@b.png"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("files"))


@contextlib.contextmanager
def served(kind: str, folder: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server on loopback that stands for a cloud's storage; gives its port too."""
    module, arguments = SERVERS[kind]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *(argument.format(port=port) for argument in arguments)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                break
            time.sleep(0.05)
        yield port, server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module", params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What addresses begin with, with the options behind a `?`, of a bucket that holds the files."""
    kind = request.param
    with served(kind, tmp_path_factory.mktemp("server")) as (port, _), pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        if kind == "gs":
            patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
            system = fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=f"127.0.0.1:{port}")
            address = "gs://bucket/{}"
        else:
            options = {"scheme": "http", "endpoint_override": f"127.0.0.1:{port}", "allow_bucket_creation": True}
            system = fs.S3FileSystem(**options)
            system.create_dir(BUCKET)
            address = "s3://bucket/{}" + f"?scheme=http&endpoint_override=127.0.0.1:{port}"
        for path in files.rglob("*"):
            if path.is_file():
                with system.open_output_stream(f"{BUCKET}/{path.relative_to(files).as_posix()}") as stream:
                    stream.write(path.read_bytes())
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("given", GIVEN)
def test_images_of_a_bucket_are_those_of_a_folder(cloud, bundle, files, tmp_path, given):
    assert_embedded_alike(bundle, files, cloud.format(given), tmp_path, workers=1)


@pytest.mark.slow
def test_classes_are_those_of_folders_in_a_bucket(cloud, bundle, files):
    address, query = cloud.format("photos|").split("|")
    assert_told_alike(bundle, files, address, query)


@pytest.mark.slow
def test_a_cluster_reads_a_bucket(cloud, bundle, files, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("pandas")
    vit_deploy.embed(bundle, files / "photos", tmp_path / "here.npy", workers=0, threads=1)
    sources = [cloud.format(given) for given in ("photos", "shards/*.tar.gz", "x.parquet")]
    vit_deploy.embed(bundle, sources, tmp_path / "there.npy", ray="local", threads=1)
    expected = np.tile(np.load(tmp_path / "here.npy"), (3, 1))
    np.testing.assert_array_equal(np.load(tmp_path / "there.npy"), expected)


@pytest.mark.slow
def test_what_is_not_in_a_bucket_is_said(cloud):
    with pytest.raises(DataError, match=r"there is nothing at \w\w://bucket/absent\b"):
        find_source([cloud.format("absent")])
    with pytest.raises(DataError, match="there is no bucket elsewhere"):
        find_source([cloud.format("photos").replace("//bucket", "//elsewhere")])
    with pytest.raises(DataError, match=r"\w\w://bucket/photos/\*\.bmp holds no images"):
        find_source([cloud.format("photos/*.bmp")])
    with pytest.raises(DataError, match=r"there is nothing at \w\w://bucket/x\.npz"):
        find_source([cloud.format("x.npz")])


@pytest.mark.slow
def test_a_storage_that_does_not_answer_is_an_error_within_its_time(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens there
        options = f"?scheme=http&endpoint_override=127.0.0.1:{closed.getsockname()[1]}"
        for address in (f"s3://bucket/photos{options}", f"gs://anonymous@bucket/photos{options}&retry_limit_seconds=1"):
            with pytest.raises(RemoteError, match="does not answer"):
                find_source([address])


@pytest.mark.slow
def test_a_storage_that_ends_in_the_middle_ends_the_run_and_breaks_no_image(bundle, files, tmp_path, monkeypatch):
    from vit_deploy.data import embedding

    monkeypatch.setattr(embedding, "PART_S", 0.0)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with served("s3", tmp_path) as (port, server):
        options = {"scheme": "http", "endpoint_override": f"127.0.0.1:{port}", "allow_bucket_creation": True}
        system = fs.S3FileSystem(**options)
        system.create_dir(BUCKET)
        for place, path in enumerate(sorted((files / "photos").rglob("*.png"))):
            with system.open_output_stream(f"{BUCKET}/photos/{place:03}.png") as stream:
                stream.write(path.read_bytes())
        address = f"s3://bucket/photos?scheme=http&endpoint_override=127.0.0.1:{port}"

        def ending(doing: str) -> None:
            if " images, " in doing and "8 of" in doing:
                server.kill()
                server.wait()

        with pytest.raises(RemoteError, match="does not answer"):
            vit_deploy.embed(bundle, address, tmp_path / "f.npy", workers=0, batch=4, streams=1, progress=ending)
    assert len(list((tmp_path / "f.npy.parts").glob("part-*"))) >= 1
    assert not (tmp_path / "f.npy").exists()


@pytest.mark.slow
def test_credentials_that_are_refused_are_named(files, tmp_path, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with served("s3", tmp_path) as (port, _):
        body = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset-auth", b"0", body)
        urllib.request.urlopen(request, timeout=30)
        with pytest.raises(RemoteError, match="is not for these credentials") as error:
            find_source([f"s3://bucket/photos?scheme=http&endpoint_override=127.0.0.1:{port}"])
    assert "AWS_ACCESS_KEY_ID" in error.value.fix and "secret" not in error.value.message
