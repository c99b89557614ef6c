"""The process that holds a browser, and ends it with all of its children when whoever started it is gone.

    keeper.py PROFILE COMMAND…

The folder PROFILE, which is the browser's, is taken away then.

Its stdin is a pipe that nobody writes to, whose end says so. All of them are one group of processes, with this one as
its leader. It imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

TRIES, TRY_S = 20, 0.05  # to take the profile away, in which the last of the browser's processes may still write


def main() -> int:
    """Run the command of the arguments until it ends or stdin does; its exit code."""
    profile, *command = sys.argv[1:]
    own_group = hasattr(os, "killpg")
    if own_group:
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # is for the browser, whose end is waited for
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 127
    alone = threading.Event()

    def watch() -> None:
        os.read(0, 1)
        alone.set()
        if own_group:
            os.killpg(0, signal.SIGTERM)
        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        process.wait()
    if alone.is_set():
        _take_away(Path(profile))
        if own_group:
            os.killpg(0, signal.SIGKILL)  # whoever did not listen
    code = process.returncode
    return code if code >= 0 else 128 - code


def _take_away(profile: Path) -> None:
    for _ in range(TRIES):
        shutil.rmtree(profile, ignore_errors=True)
        if not profile.exists():
            return
        time.sleep(TRY_S)


if __name__ == "__main__":
    sys.exit(main())
