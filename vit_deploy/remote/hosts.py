"""One command on several machines side by side."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.errors import ConfigError, RemoteError, VitDeployError
from vit_deploy.remote.android.adb import is_android
from vit_deploy.remote.arguments import request
from vit_deploy.remote.contents import Asked
from vit_deploy.remote.emulation.machine import SCHEME, emulated_machine, is_emulated
from vit_deploy.remote.engines import may_run_on_gpus, needs
from vit_deploy.remote.hosts_file import Host, machines
from vit_deploy.remote.link import Machine
from vit_deploy.remote.options import HostOptions
from vit_deploy.remote.packing import pack
from vit_deploy.remote.run import run_on
from vit_deploy.remote.ssh import ssh_machine

Told = Callable[[str], object]
Watch = Callable[[str, str], object]
MOST_AT_ONCE = 64  # machines that are sent to; others wait for one that is done


@dataclass(frozen=True)
class Answer:
    """What one machine answered.

    Args:
        host: its name, which is its address where `--on` gave it.
        records: results of the command, each with `on`.
        ok: whether its check passed.
        error: why there are none; None if there are.
        machine: as a file names it; None of `--on`.
    """

    host: str
    records: tuple[dict[str, Any], ...] = ()
    ok: bool = False
    error: VitDeployError | None = None
    machine: Host | None = None

    def to_dict(self) -> dict[str, Any]:
        """The machine and what came of it, in plain JSON values."""
        machine = self.machine or Host(self.host, self.host)
        found = {"name": self.host, "address": machine.address, "groups": list(machine.groups), "ok": self.ok}
        error = self.error
        said = {} if error is None else {"error": {"message": error.message, "fix": error.fix}}
        return {**found, "results": len(self.records), **said}

    @property
    def gap(self) -> str:
        """Why there are no results, in one line; empty if there are."""
        return f"{self.host}: {self.error.message}" if self.error is not None else ""


def ask_hosts(
    artifacts: Sequence[Path],
    command: str,
    options: object,
    hosts: HostOptions,
    *,
    more: Mapping[str, Any] | None = None,
    images: Path | None = None,
    runtimes: Sequence[str] = (),
    providers: Sequence[str] = (),
    progress: Told,
    note: Told,
    watch: Watch | None = None,
) -> list[Answer]:
    """Pack artifacts and run a command on all machines at once.

    A caller that is interrupted ends what runs there, and takes it away, before it ends itself.

    Args:
        artifacts: artifacts to send.
        command: of the runner there.
        options: that the command takes.
        hosts: the machines.
        more: what the command takes beside options, as plain JSON values.
        images: folder of images to send, as `pixels` writes them; None for none.
        runtimes: the requested engines; none for any that take the artifacts.
        providers: what is to execute the graphs; none for any.
        progress: called with what is being done.
        note: called with what could not be taken away again.
        watch: called with the name of a machine and what it does; None tells `progress` of all.

    Raises:
        ConfigError: a file of machines that cannot be read, an address that cannot be.
        ArtifactError: an artifact that is missing or was changed.
        RemoteError: no machine answered; says why each did not.
    """
    read = [read_artifact(path, check_digests=False) for path in artifacts]
    needed = needs([artifact.format for artifact in read], runtimes, providers)
    own = [name for name in ("runtime_files", "browser") if getattr(options, name, None) is not None]
    if own:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in own)
        raise ConfigError(f"{said} is of this machine's browsers", fix="leave out --on")
    arguments = request(command, options, more)
    named = {host.name: host for host in machines(hosts)}
    reached = {name: _machine(host) for name, host in named.items()}
    stop = threading.Event()
    one_at_a_time = threading.Lock()

    def tell(doing: str) -> None:
        with one_at_a_time:
            progress(doing)

    with tempfile.TemporaryDirectory() as folder:
        tell("packing the artifacts")
        package = Path(folder) / "package.tar.gz"
        pack(artifacts, package, images=images, asked=_asked(command, options, read, runtimes, providers))

        def ask(name: str) -> Answer:
            answer = answered(name)
            if watch is not None:
                watch(name, _ended(answer))
            return answer

        def answered(name: str) -> Answer:
            host = named[name]
            machine = None if name == host.address else host

            def doing(text: str) -> None:
                if watch is None:
                    tell(text)
                else:
                    watch(name, text)

            try:
                document = run_on(reached[name], package, arguments, doing, needed=needed, warn=note, stop=stop)
            except RemoteError as error:
                return Answer(name, error=error, machine=machine)
            if said := document.get("error"):
                refused = RemoteError(f"{reached[name]}: {said['message']}", fix=said["fix"])
                return Answer(name, error=refused, machine=machine)
            where = {"on": name, **({"emulated": True} if is_emulated(host.address) else {})}
            where |= {} if machine is None else {"address": host.address}
            records = tuple({**record, **where} for record in document["results"])
            return Answer(name, records, bool(document["ok"]), machine=machine)

        with ThreadPoolExecutor(min(len(reached), MOST_AT_ONCE)) as pool:
            try:
                replies = list(pool.map(ask, reached))
            except BaseException:  # an interrupt: what runs there would go on
                stop.set()
                raise
    errors = [reply.error for reply in replies if reply.error is not None]
    if len(errors) == len(replies):
        raise one_of(errors)
    return replies


def one_of(errors: Sequence[VitDeployError]) -> RemoteError:
    """One error that says what all of them say, each thing once."""
    messages = dict.fromkeys(error.message for error in errors)
    fixes = dict.fromkeys(error.fix for error in errors if error.fix)
    return RemoteError("; ".join(messages), fix="; ".join(fixes))


def _asked(
    command: str, options: object, artifacts: Sequence[Artifact], runtimes: Sequence[str], providers: Sequence[str]
) -> Asked:
    """What the runner in the archive is going to be asked for."""
    bench = options if isinstance(options, BenchOptions) else None
    return Asked(
        (command,),
        tuple(runtimes),
        may_run_on_gpus(artifacts, runtimes, providers),
        profiles=bench is not None and bench.profile,
        looks_for_batch=bench is not None and bench.under is not None,
    )


def _ended(answer: Answer) -> str:
    count = len(answer.records)
    return "no answer" if answer.error is not None else f"{count} {'result' if count == 1 else 'results'}"


def _machine(host: Host) -> Machine:
    if is_android(host.address):
        raise ConfigError(
            f"{host.address}: an Android device has no Python, which proves and classifies",
            fix="time there with `bench --benchmark-model FILE`; prove the file here or on an emulated Arm CPU",
        )
    if host.address.startswith(f"{SCHEME}:"):
        return emulated_machine(host.address, timeout_s=host.timeout)
    return ssh_machine(host.address, python=host.remote_python, config=host.ssh_config, timeout_s=host.timeout)
