"""Every session gives each caller its own answer, however many threads call it at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest
from test_runtimes import CASES, PAIRS, checkpoint, exported  # noqa: F401  # fixtures

from vit_deploy.runtimes import RUNTIMES

IMAGES = 12


@dataclass(frozen=True)
class Crowd:
    """How many threads call at once, how often each, and with how many images at most."""

    threads: int = 8
    calls: int = 50
    most: int = 7


# A processor that is emulated takes a good part of a second for an image.
CROWDS = {"keras": Crowd(calls=10), "qnn": Crowd(threads=3, calls=2, most=2)}
SAME = 1e-4  # of the largest value; other images are thousands of times as far


@pytest.fixture(scope="module")
def images(checkpoint):  # noqa: F811
    shape = (IMAGES, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)


def mixed_calls(seed, crowd, count):
    """Which of some images each call of a thread has."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(count)[: rng.integers(1, crowd.most + 1)] for _ in range(crowd.calls)]


@pytest.mark.parametrize(("format", "runtime", "batch"), CASES)
def test_answers_of_calls_at_the_same_time_are_those_of_calls_one_by_one(exported, images, format, runtime, batch):  # noqa: F811
    crowd = CROWDS.get(runtime, Crowd())
    count = min(IMAGES, 2 * crowd.most)
    together = threading.Barrier(crowd.threads)
    artifact = exported(format, batch)  # ahead of the runtime: one of them has to be loaded after TensorFlow
    with RUNTIMES.load(runtime)().open(artifact) as session:
        alone = np.concatenate([session.infer(images[index : index + 1]) for index in range(count)])
        largest = np.abs(alone).max()
        distances = np.abs(alone[:, None] - alone[None]).max(axis=-1) + np.eye(count) * largest
        assert distances.min() > 100 * SAME * largest  # an answer to another image would show

        def work(seed):
            together.wait()
            return [(chosen, session.infer(images[chosen])) for chosen in mixed_calls(seed, crowd, count)]

        with ThreadPoolExecutor(crowd.threads) as pool:
            answered = [each for given in pool.map(work, range(crowd.threads)) for each in given]
    assert len(answered) == crowd.threads * crowd.calls
    for chosen, outputs in answered:
        assert outputs.shape == (len(chosen), *alone.shape[1:])
        assert np.abs(outputs - alone[chosen]).max() <= SAME * largest


@pytest.mark.parametrize(("format", "runtime"), PAIRS)
def test_an_answer_belongs_to_its_caller(exported, images, format, runtime):  # noqa: F811
    artifact = exported(format, {"tflite": 1}.get(format))
    with RUNTIMES.load(runtime)().open(artifact) as session:
        first = session.infer(images[:1])
        kept = first.copy()
        session.infer(images[1:2])
        assert np.array_equal(first, kept)
        again = session.infer(images[:1])
        again += 1  # which it may do with what is its own
        assert np.array_equal(session.infer(images[:1]), kept)
    assert np.array_equal(first, kept)
