"""The architectures that timm makes of its class Eva, and the arguments each is made with.

The table beside this file is written by `tests/peers/make_timm_eva.py`, from the library itself.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

TABLE = "eva.json"


@functools.cache
def _table() -> Mapping[str, Any]:
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table


def eva_names() -> tuple[str, ...]:
    """Every architecture of this class, by timm's name."""
    return tuple(_table()["architectures"])


def eva_arguments(name: str) -> Mapping[str, Any] | None:
    """The arguments of an architecture, defaults included, without those that only training or shapes know.

    Args:
        name: timm's, with or without the tag of its weights.

    Returns:
        None where the class makes no such architecture.
    """
    wanted = name.partition(".")[0]
    found = _table()["architectures"].get(wanted)
    return None if found is None else {**_table()["defaults"], **found}
