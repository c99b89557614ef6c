"""Images decoded ahead in worker processes, in their order and in bounded memory."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import TypeVar

import numpy as np

from vit_deploy.core.child_processes import ending, of_children, python
from vit_deploy.data.decoding import Decoded, Decoder
from vit_deploy.data.items import Item
from vit_deploy.errors import VitDeployError

WORKER = python("-m", "vit_deploy.data.worker")
FEW = 32  # images that are decoded sooner than a process that would do it has started
MOST_WORKERS = 8  # that are started unasked
LEAST_GROUP = 8  # images that a worker takes at once
AHEAD = 2  # groups of each worker that wait, decoded or being so
PIPE_BYTES = 1 << 20

Given = TypeVar("Given")
Made = TypeVar("Made")
Groups = Iterator[tuple[list[Item], Decoded]]


def used_workers(asked: int | None, images: int | None = None) -> int:
    """How many workers are started; unasked one for each core, up to `MOST_WORKERS`, and none for few images.

    Args:
        asked: how many were; None for as many as are useful.
        images: how many there are; None where that is not known.
    """
    if asked is not None:
        return asked
    if images is not None and images <= FEW:
        return 0
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, MOST_WORKERS)


@contextlib.contextmanager
def decoded(items: Iterable[Item], decoder: Decoder, *, batch: int, workers: int) -> Iterator[Groups]:
    """Groups of images with their pixels, in order; a group is a whole number of batches, but for the last.

    When the block ends, however it does, no process and no thread of it is left.

    Args:
        items: the images.
        decoder: what is done to them.
        batch: images a call of the model.
        workers: processes; with 0 they are decoded in this one, when they are asked for.
    """
    groups = _grouped(iter(items), batch * -(-LEAST_GROUP // batch))
    if workers == 0:
        yield ((group, decoder(group)) for group in groups)
        return
    with Workers(decoder, workers) as pool:
        yield in_order(pool.threads, lambda group: (group, pool.decode(group)), groups, workers * AHEAD)


def in_order(
    threads: ThreadPoolExecutor, work: Callable[[Given], Made], given: Iterable[Given], ahead: int
) -> Iterator[Made]:
    """What `work` makes of each, in their order, while up to `ahead` of them are worked on or wait.

    Args:
        threads: that do the work.
        work: the work.
        given: what it is done to; read no further than needed.
        ahead: how many are begun before the first is asked for.
    """
    waiting: deque[Future[Made]] = deque()
    try:
        for one in given:
            waiting.append(threads.submit(work, one))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class Workers:
    """Processes that decode, each served by a thread of its own.

    Args:
        decoder: what they do.
        count: how many there are.
    """

    def __init__(self, decoder: Decoder, count: int) -> None:
        self._decoder = decoder
        self._count = count

    def __enter__(self) -> Workers:
        self._idle: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        self._all: list[DecodeProcess] = []
        for _ in range(self._count):
            self._start()
        self.threads = ThreadPoolExecutor(self._count, thread_name_prefix="decoding")
        self._ending = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        for process in self._all:
            process.kill()
        self.threads.shutdown(cancel_futures=True)
        for process in self._all:
            process.close()

    def decode(self, items: Sequence[Item]) -> Decoded:
        """Decode in whichever process is idle; an image that ends its process is one that cannot be read."""
        process = self._idle.get()
        try:
            return process.decode(items)
        except EOFError:
            if self._ending:
                raise
            return self._one_by_one(items)
        finally:
            self._idle.put(self._replaced(process))

    def _one_by_one(self, items: Sequence[Item]) -> Decoded:
        """The same, where a process has ended: an image after the other, to find the one that it was."""
        rows = []
        process = self._new()
        try:
            for item in items:
                try:
                    rows.append(process.decode([item]))
                except EOFError:
                    if self._ending:
                        raise
                    why = f"{item.path or item.name} ends the process that decodes it ({process.ending()})"
                    rows.append(self._decoder([Item(item.name, failure=why)]))
                    process = self._replaced(process)
        finally:
            self._discard(process)
        return Decoded(
            tuple(np.concatenate([row.pixels[kind] for row in rows]) for kind in range(len(self._decoder.kinds))),
            tuple(digest for row in rows for digest in row.digests),
            tuple(failure for row in rows for failure in row.failures),
        )

    def _start(self) -> None:
        self._idle.put(self._new())

    def _new(self) -> DecodeProcess:
        process = DecodeProcess(self._decoder)
        self._all.append(process)
        return process

    def _replaced(self, process: DecodeProcess) -> DecodeProcess:
        if process.is_alive() or self._ending:
            return process
        self._discard(process)
        return self._new()

    def _discard(self, process: DecodeProcess) -> None:
        process.close()
        self._all.remove(process)


class DecodeProcess:
    """One worker.

    Args:
        decoder: what it does.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Pillow is what works here; NumPy's own threads would take the cores of the engine.
            env={**of_children(), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers in order
        )
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux alone has it
            import fcntl

            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._opening: bytes = pickle.dumps(decoder, protocol=5)

    def decode(self, items: Sequence[Item]) -> Decoded:
        """What it answers.

        Raises:
            EOFError: it has ended.
            MissingEngineError: it has no library to read images with.
        """
        try:
            self._stdin.write(self._opening + pickle.dumps(items, protocol=5))
            self._stdin.flush()
            self._opening = b""
            answer = pickle.load(self._stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError, ValueError, OSError) as error:
            self._process.kill()
            raise EOFError("a process that decodes images has ended") from error
        if isinstance(answer, VitDeployError):
            raise answer
        found: Decoded = answer
        return found

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ending(self) -> str:
        """How it ended, in words; waits until it has."""
        return ending(self._process.wait())

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """End it at once, and take away what is left of it."""
        self._process.kill()
        self._process.wait()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError, OSError):  # a request that it never read
            self._stdin.close()
        self._log.close()


def _grouped(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    while group := list(islice(items, size)):
        yield group
