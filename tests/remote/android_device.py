"""An Android device on loopback for the real `adb`: the daemon's protocol, and commands that run in a folder here."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

HEADER = struct.Struct("<4sIIII4s")
VERSION, MOST_BYTES = 0x01000001, 1 << 18
TOKEN = 1  # of AUTH: what is to be signed
PLACE = "/data/local/tmp"
PROPERTIES = {"ro.product.model": "Pixel 0", "ro.build.version.release": "15", "ro.product.cpu.abi": "arm64-v8a"}
STDOUT, EXIT = 1, 3  # of shell_v2

# Runs the file through LiteRT, and prints what the real program prints; the format is the published one.
BENCHMARK_MODEL = """#!{python}
import sys, time, statistics
given = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
if "help" in given:
    print("usage: benchmark_model <flags>\\nFlags:\\n\\t--graph=  string  graph file name")
    sys.exit(1)
print("INFO: STARTING!\\nINFO: Graph: [%s]" % given["graph"])
from ai_edge_litert import interpreter as litert
start = time.perf_counter()
try:
    there = litert.Interpreter(model_path=given["graph"], num_threads=int(given["num_threads"]))
    there.allocate_tensors()
except Exception as error:
    print("ERROR: Failed to load model %s\\nERROR: Benchmarking failed." % given["graph"])
    sys.exit(1)
init = (time.perf_counter() - start) * 1e6
def run(least, seconds):
    times, end = [], time.perf_counter() + seconds
    print("INFO: Running benchmark for at least %d iterations and at least %g seconds" % (least, seconds))
    while len(times) < least or time.perf_counter() < end:
        before = time.perf_counter()
        there.invoke()
        times.append((time.perf_counter() - before) * 1e6)
    if len(times) == 1:
        print("INFO: count=1 curr=%d\\n" % times[0])
    else:
        print("INFO: count=%d first=%d curr=%d min=%d max=%d avg=%g std=%d p5=%d median=%d p95=%d\\n" % (
            len(times), times[0], times[-1], min(times), max(times), statistics.mean(times), statistics.pstdev(times),
            sorted(times)[len(times) // 20], statistics.median(times), sorted(times)[len(times) * 19 // 20]))
    return times
warm = run(1, 0.05)
times = run(int(given["num_runs"]), float(given["min_secs"]))
print("INFO: Inference timings in us: Init: %d, First inference: %d, Warmup (avg): %g, Inference (avg): %g" % (
    init, warm[0], statistics.mean(warm), statistics.mean(times)))
print("INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE")
print("INFO: Memory footprint delta from the start of the tool (MB): init=3.5 overall=8.25")
"""


@dataclasses.dataclass
class FakeDevice:
    """A device.

    Args:
        folder: what is on it.
        features: that it says it has.
        trusts: whether it takes this computer's key.
        dumb: whether it says nothing at all.
        commands: what was run there.
    """

    folder: Path
    features: str = "shell_v2,cmd"
    trusts: bool = True
    dumb: bool = False
    commands: list[str] = dataclasses.field(default_factory=list)
    port: int = 0

    @property
    def serial(self) -> str:
        """As `adb connect` names it."""
        return f"127.0.0.1:{self.port}"

    @property
    def left(self) -> list[str]:
        """What is in the folder that anybody may write to."""
        return sorted(path.name for path in Path(self.here(PLACE)).iterdir())

    def here(self, text: str) -> str:
        """A path or a command as it is on this computer."""
        return text.replace(PLACE, f"{self.folder}{PLACE}")

    @contextlib.contextmanager
    def listening(self) -> Iterator[FakeDevice]:
        """Take connections of `adb` until the block ends."""
        Path(self.here(PLACE)).mkdir(parents=True)
        (self.folder / "bin").mkdir()
        getprop = self.folder / "bin" / "getprop"
        cases = "".join(f"{name}) echo '{value}';;\n" for name, value in PROPERTIES.items())
        getprop.write_text(f'#!/bin/sh\ncase "$1" in\n{cases}*) echo;;\nesac\n')
        getprop.chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
            links: list[socket.socket] = []

            def serve() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        link, _ = server.accept()
                        links.append(link)
                        threading.Thread(target=Connection(self, link).serve, daemon=True).start()

            threading.Thread(target=serve, daemon=True).start()
            try:
                yield self
            finally:
                server.shutdown(socket.SHUT_RDWR)
                for link in links:
                    with contextlib.suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
                    link.close()


class Connection:
    """One connection of `adb`'s server, with any number of streams in it.

    Args:
        device: that is reached.
        link: the connection.
    """

    def __init__(self, device: FakeDevice, link: socket.socket) -> None:
        self.device, self.link = device, link
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}

    def serve(self) -> None:
        """Answer until it ends."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, first, second, length, _, _ = HEADER.unpack(self._read(HEADER.size))
                self._take(command, first, second, self._read(length))

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        """Send a message."""
        magic = bytes(byte ^ 0xFF for byte in command)
        with self._sending:
            self.link.sendall(HEADER.pack(command, first, second, len(data), sum(data), magic) + data)

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if self.device.dumb:
            return
        if command == b"CNXN" and self.device.trusts:
            facts = f"device::ro.product.model={PROPERTIES['ro.product.model']};features={self.device.features}"
            self.send(b"CNXN", VERSION, MOST_BYTES, facts.encode())
        elif command in (b"CNXN", b"AUTH"):
            if command == b"CNXN" or first == 2:  # a signature of a key that it does not know
                self.send(b"AUTH", TOKEN, 0, os.urandom(20))
        elif command == b"OPEN":
            number = len(self._streams) + 1
            stream = self._streams[number] = Stream(self, number, first)
            self.send(b"OKAY", number, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
        elif command == b"WRTE":
            self._streams[second].given(data)
            self.send(b"OKAY", second, first)
        elif command == b"OKAY":
            self._streams[second].ready.release()
        elif command == b"CLSE" and second in self._streams:
            self._streams[second].end()

    def _read(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            piece = self.link.recv(count - len(read))
            if not piece:
                raise EOFError
            read += piece
        return read


class Stream:
    """One service that `adb` has opened.

    Args:
        connection: that it is in.
        number: of it here.
        other: of it there.
    """

    def __init__(self, connection: Connection, number: int, other: int) -> None:
        self.connection, self.number, self.other = connection, number, other
        self.ready = threading.Semaphore(1)
        self._came, self._more = b"", threading.Condition()
        self._ended = False

    def given(self, data: bytes) -> None:
        """Take what has come."""
        with self._more:
            self._came += data
            self._more.notify()

    def end(self) -> None:
        """Nobody is there any more."""
        with self._more:
            self._ended = True
            self._more.notify()

    def serve(self, service: str) -> None:
        """Do what it is for."""
        name, _, command = service.partition(":")
        with contextlib.suppress(OSError, EOFError):
            if name.split(",")[0] == "shell":
                self._shell(command, framed="v2" in name.split(","))
            elif name == "sync":
                self._sync()
            self.connection.send(b"CLSE", self.number, self.other)

    def write(self, data: bytes) -> None:
        """Send, a message after the other as each was taken."""
        for start in range(0, len(data), MOST_BYTES // 2):
            self.ready.acquire()
            self.connection.send(b"WRTE", self.number, self.other, data[start : start + MOST_BYTES // 2])

    def read(self, count: int) -> bytes:
        """So many bytes of what comes."""
        with self._more:
            while len(self._came) < count:
                if self._ended:
                    raise EOFError
                self._more.wait()
            read, self._came = self._came[:count], self._came[count:]
            return read

    def _shell(self, command: str, *, framed: bool) -> None:
        device = self.connection.device
        device.commands.append(command)
        path = f"{device.folder}/bin{os.pathsep}{os.environ['PATH']}"
        words = ["sh", "-c", device.here(command)]
        # As the shell of a device: what is said beside the output comes with it, where exit codes do not.
        done = subprocess.run(
            words, cwd=device.folder, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, capture_output=True
        )
        said = done.stdout + done.stderr
        if not framed:
            self.write(said.replace(b"\n", b"\r\n"))
            return
        self.write(struct.pack("<BI", STDOUT, len(said)) + said + struct.pack("<BIB", EXIT, 1, done.returncode))

    def _sync(self) -> None:
        device = self.connection.device
        while True:
            request, length = struct.unpack("<4sI", self.read(8))
            if request == b"QUIT":
                return
            name = self.read(length).decode()
            path = Path(device.here(name.rpartition(",")[0] if request == b"SEND" else name))
            if request == b"STAT":
                found = path.stat() if path.exists() else None
                facts = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                self.write(struct.pack("<4sIII", b"STAT", *facts))
            elif request == b"SEND":
                self.write(self._received(path))

    def _received(self, path: Path) -> bytes:
        failed = b""
        with contextlib.ExitStack() as held:
            try:
                file = held.enter_context(path.open("wb"))
            except OSError as error:
                failed = str(error.strerror).encode()
            while True:
                kind, length = struct.unpack("<4sI", self.read(8))
                if kind == b"DONE":
                    break
                data = self.read(length)
                if not failed:
                    file.write(data)
        return struct.pack("<4sI", b"FAIL", len(failed)) + failed if failed else struct.pack("<4sI", b"OKAY", 0)


def write_program(path: Path) -> Path:
    """A `benchmark_model` that this computer runs."""
    path.write_text(BENCHMARK_MODEL.replace("{python}", sys.executable))
    return path
