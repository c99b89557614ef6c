"""The process that holds a browser, and ends it with all of its children when whoever started it is gone.

    keeper.py COMMAND…

Its stdin is a pipe that nobody writes to, whose end says so. All of them are one group of processes, with this one as
its leader. It imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command of the arguments until it ends or stdin does; its exit code."""
    own_group = hasattr(os, "killpg")
    if own_group:
        signal.signal(signal.SIGTERM, lambda number, frame: None)  # is for the browser, whose end is waited for
    try:
        process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 127

    def watch() -> None:
        os.read(0, 1)
        if own_group:
            os.killpg(0, signal.SIGKILL)
        process.kill()

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        process.wait()
    code = process.returncode
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
