"""What is being done right now?"""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def progress(doing: str) -> None:
    """Say it on stderr, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {doing}", file=sys.stderr, flush=True)
