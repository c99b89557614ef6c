"""The table of what other machines do."""

from __future__ import annotations

import io

from rich.console import Console

from vit_deploy.cli.live import Machines, watched


def test_a_row_says_what_each_machine_does_and_its_seconds_stand_still_when_it_is_done():
    now = [10.0]
    machines = Machines(lambda: now[0])
    machines.doing("pi", "asking pi@10.0.0.7")
    machines.doing("[red]board", "sending to board: 3 MB")
    now[0] = 14.0
    machines.doing("pi", "2 results")
    now[0] = 25.0
    console = Console(file=io.StringIO(), width=60)
    console.print(machines.table())
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    assert ["pi", "2", "results", "4"] in rows
    assert ["[red]board", "sending", "to", "board:", "3", "MB", "15"] in rows


def test_without_a_terminal_a_machine_that_is_done_is_a_line(capsys):
    with watched(quiet=False) as watch:
        watch("pi", "asking pi")
        watch("pi", "no answer")
        watch("board", "1 result")
    assert capsys.readouterr().err == "pi: no answer\nboard: 1 result\n"
    with watched(quiet=True) as watch:
        watch("pi", "no answer")
    assert capsys.readouterr().err == ""
