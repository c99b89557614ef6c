"""How many operators each provider of ONNX Runtime got; sessions are passed in, no engine is imported here."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RECORD = "session.record_ep_graph_assignment_info"
KERNEL = "_kernel_time"  # ends the names of a profile's events that are an operator's work


ReadPlacement = Callable[[Any, Callable[[], object]], dict[str, int]]
"""Given a session and one call of it, operators by the full name of their provider."""


@contextlib.contextmanager
def placement_of(settings: Any, *, records: bool) -> Iterator[ReadPlacement]:
    """Let a session say where its operators go.

    Args:
        settings: that the session is going to be made with.
        records: whether this version records what it assigns; earlier ones profile one call instead.
    """
    if records:
        settings.add_session_config_entry(RECORD, "1")
        yield lambda engine, call: recorded(engine)
        return
    with TemporaryDirectory() as folder:
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        yield profiled


@contextlib.contextmanager
def no_placement() -> Iterator[ReadPlacement]:
    """Leave a session as it is, so that nothing is known of its operators."""
    yield lambda engine, call: {}


def recorded(engine: Any) -> dict[str, int]:
    """The placement of the graph as it was divided up, before operators were fused."""
    counts = Counter[str]()
    for part in engine.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return dict(counts)


def profiled(engine: Any, call: Callable[[], object]) -> dict[str, int]:
    """The placement of the operators that one call runs; fused operators count as one."""
    call()
    events = json.loads(Path(engine.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    return dict(Counter(node["args"]["provider"] for node in nodes))
