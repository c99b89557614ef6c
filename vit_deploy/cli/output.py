"""A command's progress, tables, JSON and errors, each where it belongs."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from vit_deploy.cli import BAD_INPUT
from vit_deploy.cli.columns import PAGE, Column, fitted, on_a_page, ranked, wrapped
from vit_deploy.core import documents
from vit_deploy.core.stderr import stdout_to_stderr
from vit_deploy.errors import VitDeployError

if TYPE_CHECKING:
    from rich.console import Console

    from vit_deploy.api.results import Outcome
    from vit_deploy.cli.options import OutputOptions

Cell = str | int | float

UNLIMITED = 1000  # characters in a line that rich writes, which would fold paths at 80 in a file or a pipe
DONE = ": 100%"  # what is said of a task that ends with it
PATIENCE_S = 2.0  # before a line of progress is worth its place in a log

_document: list[TextIO] = []  # where the JSON goes while stdout is protected


@contextlib.contextmanager
def protected_stdout(active: bool) -> Iterator[None]:
    """While active, whatever engines print to stdout goes to stderr, and only the JSON document to stdout."""
    if not active:
        yield
        return
    with stdout_to_stderr() as document:
        _document.append(document)
        try:
            yield
        finally:
            _document.clear()


def print_json(document: dict[str, Any]) -> None:
    """Print the one document of a command."""
    stream = _document[0] if _document else sys.stdout
    json.dump(document, stream, indent=2, allow_nan=False)
    stream.write("\n")


def print_error(command: str, error: VitDeployError, *, kind: str, as_json: bool) -> None:
    """Say what was wrong and what to do, on stderr, and as a document if one was asked for."""
    if as_json:
        document = documents.failure(command, error)
        document["error"]["type"] = kind
        print_json(document)
    print(f"vit-deploy: {error}", file=sys.stderr)


class Output:
    """One command's way to the user.

    Args:
        command: its name.
        printing: what it prints: a JSON document or a table, and whether progress and notes.
    """

    def __init__(self, command: str, printing: OutputOptions) -> None:
        self.command = command
        self.as_json = printing.json
        self.quiet = printing.quiet

    def note(self, text: str) -> None:
        """One line for people, on stderr."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def finding(self, text: str) -> None:
        """What a check said no to and why, on stderr, however quiet the command is: that is a result."""
        print(text, file=sys.stderr)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Any]:
        """Gives a function to be told what is being done: a spinner on a terminal, else a line once it takes long."""
        if self.quiet:
            yield lambda doing: None
        elif sys.stderr.isatty():
            from rich.text import Text  # plain: a path may look like markup

            with self._console(stderr=True).status("starting …") as status:
                yield lambda doing: status.update(Text(f"{doing} …"))
        else:
            lines = PatientLines()
            try:
                yield lines.now
            finally:
                lines.stop()

    @contextlib.contextmanager
    def watching(self, elsewhere: bool) -> Iterator[tuple[Any, Any]]:
        """Gives two functions: one to be told what is being done, and one what each other machine does.

        Args:
            elsewhere: whether other machines are asked; else the second is None.
        """
        with contextlib.ExitStack() as stack:
            if not elsewhere:
                yield stack.enter_context(self.progress()), None
                return
            from vit_deploy.cli.live import watched

            watch = stack.enter_context(watched(self.quiet))
            yield (lambda doing: None), watch

    def finish(self, results: Sequence[documents.Record]) -> int:
        """Print records as a document where one is asked for, and give the exit code of a command that went well."""
        if self.as_json:
            print_json(documents.document(self.command, results, ok=True))
        return 0

    def tell_assumed(self, outcome: Outcome[object], *, named: bool = False) -> None:
        """Say on stderr what was assumed of the checkpoints that were read.

        Args:
            outcome: of the command.
            named: whether to put the path in front, where a command reads several.
        """
        from vit_deploy import checkpoints

        for path, provenance in (outcome.origins or {}).items():
            if words := checkpoints.in_words(provenance):
                self.note(f"{path}: {words}" if named else words)

    def show(
        self,
        outcome: Outcome[object],
        *,
        columns: Sequence[str | Column] = (),
        rows: Sequence[Sequence[Cell]] = (),
        title: str = "",
        skipped: bool = True,
    ) -> int:
        """Print what a function has returned, as a document or as a table, and give the exit code.

        Args:
            outcome: of the command.
            columns: of the table.
            rows: of the table.
            title: of the table.
            skipped: whether what was left out is said beside the table; a table may have rows for it.
        """
        if self.as_json:
            print_json(outcome.to_dict())
        else:
            if rows:
                self.table(title, columns, rows)
            for gap in outcome.skipped if skipped else ():
                self.note(f"skipped {gap}")
        if outcome.failed:
            return BAD_INPUT
        return 0 if outcome.ok else 1

    def table(self, title: str, columns: Sequence[str | Column], rows: Sequence[Sequence[Cell]]) -> None:
        """Print a table on stdout: words to the left, numbers to the right.

        On a terminal that is too narrow it loses the least important columns and the first parts of paths, and says so.
        In a file or a pipe nothing is lost, and sentences alone go on in the next line.
        """
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table

        cells = [[_printable(str(cell)) for cell in row] for row in rows]
        width = terminal_width()
        if width is None:
            shown = on_a_page(ranked(columns), cells, page_width(), cell_len)
        else:
            shown = fitted(ranked(columns), cells, width, cell_len)
        headed = any(column.name for column in shown.columns)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=headed)
        for column, values in zip(shown.columns, zip(*shown.rows, strict=True), strict=True):
            known = [value for value in values if value != "-"]
            numeric = bool(known) and all(value[:1].isdigit() for value in known)
            table.add_column(column.name, justify="right" if numeric else "left", no_wrap=True)
        for row in shown.rows:
            table.add_row(*row)
        console = self._console()
        if title:
            console.print(wrapped(title, width or UNLIMITED, cell_len), style="italic")
        with console.capture() as drawn:
            console.print(table)
        # Nothing is behind the last cell of a line, where rich would fill the column with blanks.
        print("\n".join(line.rstrip() for line in drawn.get().splitlines()))
        for remark in shown.remarks:
            console.print(wrapped(remark, width or UNLIMITED, cell_len))
        sys.stdout.flush()  # what is said on stderr next comes after it, in a log too

    def _console(self, *, stderr: bool = False) -> Console:
        from rich.console import Console

        # A table is as wide as it has to be, and no narrower: rich would break or cut what does not fit.
        width = None if stderr else UNLIMITED
        return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def terminal_width() -> int | None:
    """Characters in a line of the terminal that stdout is; None where it is none: files and pipes have no width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def page_width() -> int:
    """Characters in a line of sentences where stdout is no terminal: what `COLUMNS` says, as in a log of CI."""
    return shutil.get_terminal_size((PAGE, 0)).columns


def _printable(text: str) -> str:
    """What a terminal shows and does not obey: names of files and labels can hold anything."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class PatientLines:
    """Progress for logs: what is being done is printed once it has taken `PATIENCE_S`.

    A text that ends with a percentage says how far a task is; such a task is printed each time as long has passed,
    until all of it is done.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None
        self._task, self._text = "", ""

    def now(self, doing: str) -> None:
        """Begin something, which ends what was done before, or say how far it is."""
        if doing.endswith(DONE):
            self.stop()
            return
        task = doing.rpartition(": ")[0] if doing.endswith("%") else ""
        self._text = doing
        if not task or task != self._task:
            self.stop()
            self._task = task
            self._wait()

    def _wait(self) -> None:
        self._timer = threading.Timer(PATIENCE_S, self._tell)
        self._timer.daemon = True
        self._timer.start()

    def _tell(self) -> None:
        print(f"{self._text} …", file=sys.stderr, flush=True)
        if self._task:
            self._wait()

    def stop(self) -> None:
        """Nothing is being done any more."""
        self._task = ""
        if self._timer is not None:
            self._timer.cancel()
