"""What other machines do at the moment: a table on a terminal, else a line for each that is done."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Watch = Callable[[str, str], object]
ENDINGS = (" result", " results", "no answer")  # how what is told of a machine ends that is done


@contextlib.contextmanager
def watched(quiet: bool) -> Iterator[Watch]:
    """Gives a function to be told what a machine does; threads may call it.

    Args:
        quiet: whether nothing is shown.
    """
    if quiet:
        yield lambda machine, doing: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.live import Live

        machines = Machines()
        with Live(console=Console(stderr=True, highlight=False), transient=True, get_renderable=machines.table):
            yield machines.doing
    else:
        yield _line


class Machines:
    """What each machine does, and since when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._turn = threading.Lock()
        self._begun: dict[str, float] = {}
        self._now: dict[str, tuple[str, float]] = {}

    def doing(self, machine: str, doing: str) -> None:
        """A machine does something else."""
        with self._turn:
            self._begun.setdefault(machine, self._clock())
            self._now[machine] = (doing, self._clock())

    def table(self) -> Table:
        """A row for each machine: its name, what it does, and the seconds since it was asked."""
        from rich import box
        from rich.table import Table
        from rich.text import Text  # plain: a name may look like markup

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("machine", "doing", "seconds"):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        with self._turn:
            for machine, (doing, since) in self._now.items():
                end = since if doing.endswith(ENDINGS) else self._clock()
                cells: list[Any] = [Text(machine), Text(doing), f"{end - self._begun[machine]:.0f}"]
                table.add_row(*cells)
        return table


def _line(machine: str, doing: str) -> None:
    if doing.endswith(ENDINGS):
        print(f"{machine}: {doing}", file=sys.stderr, flush=True)
