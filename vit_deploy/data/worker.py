"""The process that decodes images: it takes groups of items as pickles on stdin, and answers each on stdout.

The first pickle is the decoder. What is answered is a `Decoded`, or the error that keeps all images from being read. It
ends when its stdin does, as it does when the process that started it is gone.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from typing import BinaryIO

from vit_deploy.core.stderr import STDERR, STDIN, STDOUT
from vit_deploy.errors import VitDeployError


def main() -> int:
    """Serve until stdin ends."""
    requests, answers = os.fdopen(os.dup(STDIN), "rb"), os.fdopen(os.dup(STDOUT), "wb")
    os.dup2(STDERR, STDOUT)  # what a library prints is no answer
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve(requests, answers)
    return 0


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    decoder = pickle.load(requests)
    while True:
        items = pickle.load(requests)
        try:
            answer = decoder(items)
        except VitDeployError as error:
            answer = error
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    sys.exit(main())
