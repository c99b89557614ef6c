"""Commands run on other machines, side by side, with their results in one table."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vit_deploy.cli.options import split_at_commas

if TYPE_CHECKING:
    from vit_deploy.cli.output import Output
    from vit_deploy.errors import VitDeployError

On = Annotated[
    list[str] | None,
    typer.Option(
        "--on", metavar="ssh://USER@HOST", help="Another machine to run on; repeat for more.", callback=split_at_commas
    ),
]
RemotePython = Annotated[str, typer.Option("--remote-python", help="Python there.")]
SshConfig = Annotated[Path | None, typer.Option("--ssh-config", metavar="FILE", help="Of ssh, instead of the user's.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds for each machine, sending included.")]


@dataclass(frozen=True)
class Answer:
    """What one machine said.

    Args:
        host: its address as it was given.
        records: results of the command, each with `on`.
        ok: whether its check passed.
        error: why there are none; None if there are.
    """

    host: str
    records: tuple[dict[str, Any], ...] = ()
    ok: bool = False
    error: VitDeployError | None = None

    @property
    def row(self) -> tuple[str, str]:
        """Its first cells in the table, where it has no results."""
        return (self.host, "no answer")

    @property
    def gap(self) -> str:
        """Why there are no results, in one line; empty if there are."""
        return f"{self.host}: {self.error.message}" if self.error is not None else ""


def ask_hosts(
    out: Output,
    artifacts: Sequence[Path],
    arguments: Sequence[str],
    *,
    on: Sequence[str],
    python: str,
    config: Path | None,
    timeout_s: float,
) -> list[Answer]:
    """Pack the artifacts and run them on all machines at once.

    A command that is interrupted ends what runs there, and takes it away, before it ends itself.

    Raises:
        ConfigError: an address that cannot be.
        ArtifactError: a bundle that is missing or was changed.
        RemoteError: no machine answered; says why each did not.
    """
    from vit_deploy.errors import RemoteError
    from vit_deploy.remote.packing import pack
    from vit_deploy.remote.run import parse_host, run_on

    hosts = {url: parse_host(url, python=python, config=config, timeout_s=timeout_s) for url in on}
    stop = threading.Event()

    def ask(url: str) -> Answer:
        try:
            document = run_on(hosts[url], package, arguments, tell, warn=out.note, stop=stop)
        except RemoteError as error:
            return Answer(url, error=error)
        if said := document.get("error"):
            return Answer(url, error=RemoteError(f"{hosts[url]}: {said['message']}", fix=said["fix"]))
        return Answer(url, tuple({**each, "on": url} for each in document["results"]), bool(document["ok"]))

    with tempfile.TemporaryDirectory() as folder, out.progress() as progress:
        one_at_a_time = threading.Lock()

        def tell(doing: str) -> None:
            with one_at_a_time:
                progress(doing)

        tell("packing the artifacts")
        package = Path(folder) / "package.tar.gz"
        pack(artifacts, package)
        with ThreadPoolExecutor(len(hosts)) as pool:
            try:
                answers = list(pool.map(ask, hosts))
            except BaseException:  # an interrupt: what runs there would go on
                stop.set()
                raise
    errors = [each.error for each in answers if each.error is not None]
    if len(errors) == len(answers):
        messages = dict.fromkeys(each.message for each in errors)
        fixes = dict.fromkeys(each.fix for each in errors if each.fix)
        raise RemoteError("; ".join(messages), fix="; ".join(fixes))
    for error in errors:
        out.finding(str(error))
    return answers


def gaps(out: Output, answers: Sequence[Answer]) -> list[str]:
    """What the document lists as skipped: machines that gave no results; a table has a row for each of them."""
    return [each.gap for each in answers if each.error is not None] if out.as_json else []
