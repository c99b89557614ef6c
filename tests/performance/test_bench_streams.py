"""Calls of several streams are really under way at the same time."""

from __future__ import annotations

import threading

import pytest

from vit_deploy.performance import worker


class Meeting:
    """A call that, but for its first, waits until that of every other stream has begun."""

    def __init__(self, barrier: threading.Barrier) -> None:
        self.barrier, self.made = barrier, 0

    def __call__(self) -> None:
        self.made += 1
        if self.made > 1:  # before a round each stream makes one alone
            self.barrier.wait(timeout=10)


@pytest.mark.parametrize("streams", [2, 3])
def test_each_stream_has_a_call_under_way_while_the_others_have(streams, monkeypatch):
    monkeypatch.setattr(worker, "_sleep_until_idle", lambda calls: True)
    barrier = threading.Barrier(streams)
    calls = [Meeting(barrier) for _ in range(streams)]
    found = worker._measured(calls, calls=4 * streams, seconds=None, on_gpu=False)
    assert len(found["samples_ns"]) == 4 * streams
    assert [call.made for call in calls] == [5] * streams
    assert max(found["samples_ns"]) <= found["round_ns"]


def test_calls_in_turn_would_be_found_out(monkeypatch):
    monkeypatch.setattr(worker, "_sleep_until_idle", lambda calls: True)
    alone = Meeting(threading.Barrier(2))
    monkeypatch.setattr(alone.barrier, "wait", lambda timeout: threading.Barrier.wait(alone.barrier, 0.05))
    with pytest.raises(threading.BrokenBarrierError):
        worker._measured([alone], calls=2, seconds=None, on_gpu=False)
