"""Hadoop's client, which pyarrow reads hdfs with: how long it waits, and what it prints in place of an error."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from vit_deploy.core.child_processes import set_for_libraries
from vit_deploy.core.stderr import Captured, quiet_stderr

SCHEMES = ("hdfs", "viewfs")
DEFAULT = "default"  # what pyarrow calls the file system of Hadoop's own settings, which `hdfs:///path` is on
# Else a NameNode that is away is asked for a quarter of an hour, and one that says nothing for ever; now it is for a
# minute, or for what `ipc.ping.interval` says.
WAITING = {
    "ipc.client.connect.max.retries": "3",  # a second each
    "ipc.client.connect.max.retries.on.timeouts": "1",  # 20 seconds each
    "ipc.client.ping": "false",
}
JAVA_OPTIONS = "LIBHDFS_OPTS"
SIGNALS_ARE_OURS = "-Xrs"  # Java would end this process at Ctrl-C, in the middle of what is being written
NO_CLASSES = ("CLASSPATH not set", "NoClassDefFoundError", "ClassNotFoundException")  # not Hadoop's, at least
SILENCES = (
    *("ConnectException", "NoRouteToHost", "UnknownHost", "SocketTimeout", "ConnectTimeout", "SocketException"),
    *("EOFException", "ClosedChannel", "BlockMissing", "Could not obtain block", "HDFS connection failed"),
    *("StandbyException", "SafeMode", "RpcException", "End of File", "Connection reset", "InvalidProtocolBuffer"),
)
CREDENTIALS = "write hdfs://USER@HOST:PORT/… or set HADOOP_USER_NAME; of a cluster with Kerberos, run kinit before"
REACHING = "check the network, the address of the NameNode as hdfs://HOST:PORT/…, and that its DataNodes run"
CLASSES = "set CLASSPATH to what `hadoop classpath --glob` says"
THROWN = re.compile(r"^(?:Caused by: )?(?:[\w$]+\.)*(\w+(?:Exception|Error)\b.*)$", re.MULTILINE)
TWICE = re.compile(r"^(\w+): (.+?)(?:[a-z]\w*\.)+\1: \2$", re.MULTILINE)  # as Hadoop 3 says it, with its package behind
SENT = re.compile(r"^RemoteException\((\w+)\)")  # how what the server has thrown arrives
NAMES = re.compile(r"\b(?:[a-z]\w*\.)+(?=[A-Z]\w*(?:Exception|Error)\b)")  # of Java packages


def waiting(given: set[str]) -> list[str]:
    """Options of an address that keep Hadoop's client from waiting without end.

    Args:
        given: the names of options that the address has already.
    """
    return [f"{name}={value}" for name, value in WAITING.items() if name not in given]


@contextlib.contextmanager
def quiet() -> Iterator[Captured]:
    """A block in which Hadoop's client prints nothing to stderr, where it has its warnings and traces of its stack."""
    given = os.environ.get(JAVA_OPTIONS, "")
    if SIGNALS_ARE_OURS not in given.split():
        set_for_libraries(JAVA_OPTIONS, f"{given} {SIGNALS_ARE_OURS}".strip())
    with quiet_stderr() as printed:
        yield printed


def reason(printed: str) -> str:
    """What was first at fault, of what Hadoop's client has printed; empty where it says no error.

    Args:
        printed: its lines, with Java's traces of the stack.
    """
    thrown = THROWN.findall(TWICE.sub(r"\1: \2", printed))
    if thrown:
        return SENT.sub(r"\1", NAMES.sub("", thrown[-1])).strip()
    return next((words for words in NO_CLASSES if words in printed), "")
