"""An archive of artifacts run on another machine.

A connection that drops while artifacts are sent is taken up where it broke; the run itself is detached from the
connection, and is asked now and then whether it has ended.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.core.child_processes import ISOLATION
from vit_deploy.core.older_python import sha256_of
from vit_deploy.core.registry import no_engine
from vit_deploy.errors import RemoteError
from vit_deploy.remote.device import CODE, LOG, OLDEST, PID, RESULT, STARTED
from vit_deploy.remote.engines import Need, missing_there
from vit_deploy.remote.link import Link, Machine, Progress, told_how_much
from vit_deploy.remote.packing import ROOT
from vit_deploy.remote.ssh import CONNECT_S

POLL_S = 60  # how long one question whether the run has ended may wait on the other side
GONE = "gone"  # the answer where it ended without a word
STOP_S = 5  # for a run that is told to end, before it is killed
CLEAN_S = CONNECT_S + STOP_S + 10
STALE_DAYS = 2  # after which what a lost connection left there is taken away
CACHE = ".cache/vit-deploy"  # in the home folder there
PACKAGE = "package.tar.gz"


def run_on(
    host: Machine,
    package: Path,
    arguments: Sequence[str],
    progress: Progress = lambda doing: None,
    *,
    needed: Sequence[Need] = (),
    warn: Progress = lambda text: None,
    stop: threading.Event | None = None,
) -> Mapping[str, Any]:
    """Send a packed set of artifacts, run it there, and bring the document back; nothing of it stays there.

    Args:
        host: the machine to run on.
        package: the archive from `packing.pack`.
        arguments: the arguments for its `run.py`.
        progress: is told what is being done.
        needed: the engines that the artifacts need, looked for before anything is sent.
        warn: is told what could not be taken away, if anything.
        stop: once it is set, the run is ended and cleaned up.

    Raises:
        RemoteError: it cannot be reached, lacks what it takes, did not end in time, or was stopped.
    """
    link = Link(host, time.monotonic() + host.timeout_s, stop)
    work = f"{CACHE}/{secrets.token_hex(8)}"
    progress(f"asking {host}")
    _check_python(link, needed)
    try:
        _send(link, package, work, progress)
        progress(f"running on {host}")
        _start(link, work, arguments)
        return _wait(link, work)
    finally:
        _clean(host, work, warn)


def _check_python(link: Link, needed: Sequence[Need]) -> None:
    """Refuse a machine without Python, NumPy or an engine that the artifacts need."""
    python = link.host.python
    modules = sorted({name for need in needed for name in need.modules})
    code = ISOLATION + '; print("python %d.%d" % sys.version_info[:2]); sys.stdout.flush()'
    code += '; import numpy; print("numpy " + numpy.__version__)'
    code += f"; import importlib.util as u; print('absent', *(n for n in {modules!r} if u.find_spec(n) is None))"
    code += "; print('executable ' + sys.executable)"
    try:
        said = link.run(f"{python} -c {shlex.quote(code)} 2>&1 || true", retry=False).strip()
    except ConnectionError as error:
        raise RemoteError(f"{link.host} cannot be reached: {error}", fix=f"try `{link.host.by_hand}`") from error
    last = said.splitlines()[-1] if said else "no answer"
    version = re.search(r"^python (\d+)\.(\d+)$", said, re.MULTILINE)
    need = f"Python {'.'.join(map(str, OLDEST))} or later with NumPy and the engine"
    fix = f"install {need} there, and name it with --remote-python"
    if version is None:
        raise RemoteError(f"{link.host}: {python} does not run: {last}", fix=fix)
    if (int(version[1]), int(version[2])) < OLDEST:
        raise RemoteError(f"{link.host}: {python} is version {version[1]}.{version[2]}", fix=fix)
    if not re.search(r"^numpy \S+$", said, re.MULTILINE):
        raise RemoteError(f"{link.host}: {python} has no NumPy that it can import: {last}", fix=fix)
    absent = re.search(r"^absent ?(.*)$", said, re.MULTILINE)
    executable = re.search(r"^executable (.+)$", said, re.MULTILINE)
    if missing := missing_there(needed, absent[1].split() if absent else ()):
        lacking = no_engine(executable[1] if executable else python, missing)
        raise RemoteError(f"{link.host}: {lacking.message}", fix=lacking.fix)


def _send(link: Link, package: Path, work: str, progress: Progress) -> None:
    """Append what is not there yet, until all is."""
    total = package.stat().st_size
    with package.open("rb") as file:
        digest = sha256_of(file)
    place = shlex.quote(work)
    part = f"{place}/{PACKAGE}.part"
    # In pieces: the file may be larger than the memory there.
    sum_code = f"{ISOLATION}; import hashlib; digest = hashlib.sha256(); file = open(sys.argv[1], 'rb')"
    sum_code += "; all(digest.update(piece) is None for piece in iter(lambda: file.read(1 << 20), b''))"
    sum_code += "; print(digest.hexdigest())"
    stale = f"find {CACHE} -mindepth 1 -maxdepth 1 -mtime +{STALE_DAYS} -exec rm -rf {{}} + 2> /dev/null"
    link.run(f"mkdir -p {place} && {{ {stale} || true; }}")
    while True:
        there = int(link.run(f"touch {part} && wc -c < {part}").strip())
        if there < total:
            progress(f"sending to {link.host}: {(total - there) / 1e6:.1f} MB")
            with package.open("rb") as file:
                file.seek(there)
                watch = told_how_much(file, total, lambda much: progress(f"sending to {link.host}: {much}"))
                try:
                    link.run(f"cat >> {part}", stdin=file, retry=False, watch=watch)
                except ConnectionError:
                    link.pause()
        elif link.run(f"{link.host.python} -c {shlex.quote(sum_code)} {part}").strip() == digest:
            link.run(f"[ -f {place}/{PACKAGE} ] || mv {part} {place}/{PACKAGE}")
            return
        else:  # what a dropped connection left was not the beginning of it
            link.run(f"rm -f {part}")


def _start(link: Link, work: str, arguments: Sequence[str]) -> None:
    """Unpack and launch; a start that is repeated, since the connection dropped, finds that it was made.

    It is launched from the home folder, where a `python` with a relative path was found.
    """
    place = shlex.quote(work)
    words = " ".join(map(shlex.quote, (f"{work}/{ROOT}/run.py", "detached", work, *arguments)))
    launch = f"(cd {place} && tar -xzf {PACKAGE}) && {link.host.python} {words}"
    link.run(f"[ -d {place}/{STARTED} ] || {{ {launch}; }}")


def _wait(link: Link, work: str) -> Mapping[str, Any]:
    place = shlex.quote(work)
    code = ""
    # A run whose process is gone may have left its exit code just before.
    question = (
        f"n=0; while [ $n -lt {POLL_S} ] && [ -d {place} ] && [ ! -f {place}/{CODE} ]; do "
        f"if p=$(cat {place}/{PID} 2> /dev/null) && ! kill -0 $p 2> /dev/null; then n={POLL_S}; "
        f"[ -f {place}/{CODE} ] || echo {GONE}; else sleep 1; n=$((n+1)); fi; done; "
        f"cat {place}/{CODE} 2> /dev/null || [ -d {place} ] || echo {GONE}"
    )
    while not code:
        code = link.run(question).strip()
    text = link.run(f"cat {place}/{RESULT} 2> /dev/null || true") if code != GONE else ""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    log = link.run(f"tail -n 5 {place}/{LOG} 2> /dev/null || true").strip()
    if code == GONE:
        raise RemoteError(
            f"{link.host}: the run was killed there: {log or 'it said nothing'}",
            fix="check that the memory there suffices, and that processes may outlive their session",
        )
    raise RemoteError(
        f"{link.host}: the run ended with exit {code} and no result: {log or 'it said nothing'}",
        fix="check Python, NumPy and the engine there",
    )


def _clean(host: Machine, work: str, warn: Progress) -> None:
    """Take everything away, and end what may still run.

    A machine that is gone keeps it until another run on it, some days later, takes it away.
    """
    place = shlex.quote(work)
    # Told to end, it ends the processes that time its cases; killed, it would leave one that hangs.
    end = (
        f"if [ ! -f {place}/{CODE} ] && p=$(cat {place}/{PID}); then kill $p; n=0; "
        f"while [ $n -lt {STOP_S} ] && kill -0 $p; do sleep 1; n=$((n+1)); done; kill -s KILL -- -$p $p; fi"
    )
    remove = f"rm -rf {place} || {{ sleep 1; rm -rf {place}; }}"
    try:
        Link(host, time.monotonic() + CLEAN_S).run(f"{{ {end}; }} 2> /dev/null; {remove}", retry=False)
    except (RemoteError, ConnectionError) as error:
        said = error.message if isinstance(error, RemoteError) else str(error)
        warn(f"{host} could not be cleaned up, and keeps ~/{work}: {said}")
