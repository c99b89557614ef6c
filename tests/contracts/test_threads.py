"""Every session gives each caller its own answer, however many threads call it at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_runtimes import CASES, PAIRS, checkpoint, exported  # noqa: F401  # fixtures

from vit_deploy.runtimes import RUNTIMES

THREADS = 8
CALLS = 50  # of each thread
SLOW = {"keras": 5, "qnn": 25}  # times as few calls
IMAGES = 12
SAME = 1e-4  # of the largest value; other images are thousands of times as far


@pytest.fixture(scope="module")
def images(checkpoint):  # noqa: F811
    shape = (IMAGES, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)


def mixed_calls(seed, calls):
    """Which images each call of a thread has: one to seven of them."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(IMAGES)[: rng.integers(1, 8)] for _ in range(calls)]


@pytest.mark.parametrize(("format", "runtime", "batch"), CASES)
def test_answers_of_calls_at_the_same_time_are_those_of_calls_one_by_one(exported, images, format, runtime, batch):  # noqa: F811
    calls = CALLS // SLOW.get(runtime, 1)
    together = threading.Barrier(THREADS)
    with RUNTIMES.load(runtime)().open(exported(format, batch)) as session:
        alone = np.concatenate([session.infer(images[index : index + 1]) for index in range(IMAGES)])
        largest = np.abs(alone).max()
        distances = np.abs(alone[:, None] - alone[None]).max(axis=-1) + np.eye(IMAGES) * largest
        assert distances.min() > 100 * SAME * largest  # an answer to another image would show

        def work(seed):
            together.wait()
            return [(chosen, session.infer(images[chosen])) for chosen in mixed_calls(seed, calls)]

        with ThreadPoolExecutor(THREADS) as pool:
            answered = [each for given in pool.map(work, range(THREADS)) for each in given]
    assert len(answered) == THREADS * calls
    for chosen, outputs in answered:
        assert outputs.shape == (len(chosen), *alone.shape[1:])
        assert np.abs(outputs - alone[chosen]).max() <= SAME * largest


@pytest.mark.parametrize(("format", "runtime"), PAIRS)
def test_an_answer_belongs_to_its_caller(exported, images, format, runtime):  # noqa: F811
    batch = {"tflite": 1}.get(format)
    with RUNTIMES.load(runtime)().open(exported(format, batch)) as session:
        first = session.infer(images[:1])
        kept = first.copy()
        session.infer(images[1:2])
        assert np.array_equal(first, kept)
        again = session.infer(images[:1])
        again += 1  # which it may do with what is its own
        assert np.array_equal(session.infer(images[:1]), kept)
    assert np.array_equal(first, kept)
