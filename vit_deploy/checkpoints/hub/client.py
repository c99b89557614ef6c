"""How a hub is asked: who asks, and with how much patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError

import vit_deploy
from vit_deploy.checkpoints.hub.progress import tell

CLIENT = {"library_name": "vit-deploy", "library_version": vit_deploy.__version__}
BUSY = (429, 500, 502, 503, 504)
TRIES = 4
LONGEST_WAIT_S = 60.0

Answer = TypeVar("Answer")


def patiently(call: Callable[[], Answer]) -> Answer:
    """What a call to the hub gives, made again where it says that it is busy, when it says so.

    Raises:
        HfHubHTTPError: it is still busy, wants more time than is waited, or has refused.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return call()
        except HfHubHTTPError as error:
            after = str(error.response.headers.get("Retry-After", ""))
            pause = float(after) if after.isdigit() else 2.0 ** (attempt - 1)
            if attempt == TRIES or error.response.status_code not in BUSY or pause > LONGEST_WAIT_S:
                raise
            tell(f"waiting {pause:g} s, for the hub is busy")
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")
