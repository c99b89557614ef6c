"""Images spread over the nodes of a Ray cluster, by Ray Data and a pool of workers with an engine each."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray import exceptions

import vit_deploy
from vit_deploy.core.child_processes import ISOLATING
from vit_deploy.core.fault_handlers import kept_handlers
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.data.items import Item, Source
from vit_deploy.data.shipping import Shipment, ship
from vit_deploy.data.spreading import GROUP, LOCAL, Needs, Work, needs_of
from vit_deploy.errors import EngineError, UsageError, VitDeployError

BLOCKS = 2_000  # that a run is cut into at most; what a worker had of one when it was killed is done again
WINDOW = 4_096  # groups that are listed at once, so that memory does not grow with them; then workers start again
AUTO = "auto"  # the cluster that runs on this machine, or that the environment names
CLIENT = "ray://"  # of Ray's own client, over which Ray Data does not run
ADDRESS = re.compile(r"(?P<host>\[[^\]]+\]|[^:/\[\]]+):(?P<port>\d{1,5})")
CONNECT_S = 15  # for the head of a cluster to answer
# How a client of gRPC, which Ray speaks, begins, and the kind of frame that every server of it begins with.
SETTINGS, FRAME = b"\x04", 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + b"\0" * 5
LOOPBACK = "127.0.0.1"
LOOPBACK_ALONE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # what Ray reads in its own processes


@contextlib.contextmanager
def over_ray(
    address: str, work: Work, source: Source, *, batch: int, start: int = 0
) -> Iterator[Iterator[tuple[list[Item], Any]]]:
    """What workers make of all images from one on: groups of items in their order, each with its result.

    Ray replaces a worker that is killed, and gives its images to another. A group is a whole number of batches, as in
    one process, so that results are the same bit for bit.

    Args:
        address: of the cluster, as Ray takes it; "local" starts one here, which ends with the block.
        work: what is done.
        source: the images.
        batch: images a call.
        start: the place of the first image.

    Raises:
        UsageError: no cluster answers, no node has what a worker needs, or work that cannot travel.
        MissingEngineError, EngineError: a node has no engine, or it refuses; names the node.
        DataError: a node does not see the images.
    """
    shipment, needs = ship(work, source), needs_of(work)
    size = batch * -(-GROUP // batch)
    with _connected(address):
        count = _workers(needs)
        yield _results(shipment, needs, count, source, start, size)


def _results(
    shipment: Shipment, needs: Needs, workers: int, source: Source, start: int, size: int
) -> Iterator[tuple[list[Item], Any]]:
    left, items, place = _groups(shipment, source, start, size), source.items(start), 0
    while groups := list(islice(left, WINDOW)):
        for answer in _answers(groups, shipment, needs, workers):
            if isinstance(answer["answer"], VitDeployError):
                raise answer["answer"]
            if answer["place"] != place:
                raise EngineError(
                    f"Ray gave group {answer['place']} where {place} was next", fix="try another version of Ray"
                )
            yield list(islice(items, size)), answer["answer"]
            place += 1


def _answers(
    groups: Sequence[dict[str, Any]], shipment: Shipment, needs: Needs, workers: int
) -> Iterator[dict[str, Any]]:
    """What a pool of workers answers to groups, in their order."""
    data = ray.data.from_items(groups, override_num_blocks=min(len(groups), BLOCKS))
    done = data.map_batches(
        _worker(shipment),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(groups))),
        num_cpus=needs.cpus,
        num_gpus=needs.gpus or None,
        memory=needs.memory,
    )
    try:
        for row in done.iter_rows():
            yield {"place": row["place"], "answer": pickle.loads(row["answer"])}
    except exceptions.RayError as error:
        raise EngineError(
            f"the cluster failed: {str(error).strip().splitlines()[-1]}", fix="look at Ray's logs"
        ) from error


def _groups(shipment: Shipment, source: Source, start: int, size: int) -> Iterator[dict[str, Any]]:
    """Where each group of images is: its items, or its place where these carry their content."""
    if shipment.source is None:
        items = source.items(start)
        place = 0
        while group := list(islice(items, size)):
            yield {"place": place, "start": 0, "count": len(group), "items": pickle.dumps(group)}
            place += 1
        return
    total = source.total()
    if total is None:  # it travels with the numbers that it has counted of each file
        total = sum(1 for _ in source.items())
    for place, first in enumerate(range(start, total, size)):
        yield {"place": place, "start": first, "count": min(size, total - first), "items": b""}


def _worker(shipment: Shipment) -> type:
    """The class of a worker: its engines are loaded once, when its first images come.

    It travels by value: as an argument of its constructor the work would be lost with the node that holds it.
    """
    packed = ray.put(pickle.dumps(shipment))  # held here as long as there are workers

    class Worker:
        def __init__(self) -> None:
            self._open = contextlib.ExitStack()
            self._answer: Any = None

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            answers = []
            rows = zip(batch["items"], batch["start"], batch["count"], strict=True)
            for items, first, count in rows:
                try:
                    if self._answer is None:
                        self._answer = self._open.enter_context(pickle.loads(ray.get(packed)).open())
                    answer = self._answer(items, int(first), int(count))
                except VitDeployError as error:
                    error.message = f"on the node {ray.util.get_node_ip_address()}: {error.message}"
                    answer = error
                answers.append(pickle.dumps(answer))
            return {"place": batch["place"], "answer": answers}

    return Worker


def _workers(needs: Needs) -> int:
    """How many workers the nodes have room for.

    Raises:
        UsageError: for none.
    """
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            fits = [there.get("CPU", 0) // needs.cpus, there.get("memory", 0) // needs.memory]
            fits += [there.get("GPU", 0) // needs.gpus] if needs.gpus else []
            room += int(min(fits))
    if not room:
        gpus = f", {needs.gpus} GPU" if needs.gpus else ""
        raise UsageError(
            f"no node of the cluster has room for a worker: {needs.cpus} CPUs{gpus}, {needs.memory / 1e6:.0f} MB",
            fix="ask for fewer --threads, or give a cluster with more",
        )
    return room


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """A connection, which a caller that has one of its own keeps."""
    for name in ("ray", "ray.data"):  # what fails is said by the error that it becomes
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    if ray.is_initialized():
        yield
        return
    _check_answers(address)
    own = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    package = Path(vit_deploy.__file__).parent
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == LOCAL:
        options |= {"include_dashboard": False, "_node_ip_address": LOOPBACK}
        paths = filter(None, [str(package.parent), os.environ.get("PYTHONPATH", "")])
        own |= {"PYTHONPATH": os.pathsep.join(paths), ISOLATING: "1", LOOPBACK_ALONE: "0"}
    else:
        options |= {"address": address, "runtime_env": {"py_modules": [str(package)], "env_vars": {ISOLATING: "1"}}}
    try:
        with quiet_stderr(), _nowhere(), _environment(own), _reached_from_here(address == LOCAL), kept_handlers():
            ray.init(**options)
    except (ConnectionError, exceptions.RayError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {address}: {str(error).strip().splitlines()[0]}",
            fix="check the address, or start one with `ray start --head`",
        ) from error
    try:
        yield
    finally:
        with kept_handlers():
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Refuse an address at which nothing listens that may be Ray, which would try for many minutes.

    Raises:
        UsageError: such an address, or what is none.
    """
    asked = os.environ.get("RAY_ADDRESS", address) if address == AUTO else address
    if asked in (AUTO, LOCAL):
        return
    if asked.startswith(CLIENT):
        raise UsageError(
            f"{asked} is an address of Ray's own client, and Ray Data, which spreads the images, does not run over it",
            fix="run the command on a node of the cluster, with --ray auto, or the HOST:PORT of its head",
        )
    found = ADDRESS.fullmatch(asked)
    if found is None:
        raise UsageError(f"{asked!r} is no address of a Ray cluster", fix="give auto or HOST:PORT")
    try:
        with socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=CONNECT_S) as link:
            if os.environ.get("RAY_USE_TLS") == "1":
                return
            link.sendall(PREFACE)
            if link.recv(FRAME)[3:4] != SETTINGS:
                raise ConnectionError("what answers there is something else")
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"no Ray cluster answers at {asked}: {error}", fix="check the address, or start one with `ray start --head`"
        ) from error


@contextlib.contextmanager
def _reached_from_here(alone: bool) -> Iterator[None]:
    """A block in which Ray starts a cluster that this machine alone can reach.

    Ray has a way for that, which it takes on macOS and Windows by itself; elsewhere it would listen on every address,
    whatever address of a node is asked for.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not alone
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _environment(own: dict[str, str]) -> Iterator[None]:
    """A block in which what is started has these variables, and after which this process is as it was."""
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _nowhere() -> Iterator[None]:
    """A block in which this program has no folder that Ray would have its workers import from."""
    before, program = os.getcwd(), sys.argv[0]  # noqa: PTH109
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv[0] = ""
        try:
            yield
        finally:
            os.chdir(before)
            sys.argv[0] = program
