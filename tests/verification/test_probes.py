"""Neighbours and linear probes agree with what is computed the long way, and draw nothing."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.verification.probes import (
    NEIGHBOURS,
    STRENGTHS,
    TEMPERATURE,
    interval_95,
    linear_probe,
    nearest,
)


@pytest.fixture
def clusters():
    """Sixty vectors about three directions, and the class of each."""
    rng = np.random.default_rng(3)
    labels = np.arange(60) % 3
    directions = 4 * np.eye(3, 7)
    return (directions[labels] + rng.standard_normal((60, 7))).astype(np.float32), labels.astype(np.int64)


def test_neighbours_are_the_most_alike_by_cosine_and_not_oneself(clusters):
    features, labels = clusters
    found = nearest(features)
    assert found.indices.shape == (60, NEIGHBOURS)
    for place, vector in enumerate(features.astype(np.float64)):
        likeness = [
            -np.inf if other == place else vector @ each / np.linalg.norm(vector) / np.linalg.norm(each)
            for other, each in enumerate(features.astype(np.float64))
        ]
        assert found.indices[place].tolist() == np.argsort(-np.array(likeness), kind="stable")[:NEIGHBOURS].tolist()
        votes = np.zeros(3)
        for index in found.indices[place]:
            votes[labels[index]] += np.exp(likeness[index] / TEMPERATURE)
        assert found.classes(labels)[place] == votes.argmax()


def test_training_images_are_all_neighbours_that_there_are(clusters):
    features, _ = clusters
    found = nearest(features[:10], features[10:22])
    assert found.indices.shape == (10, 12)
    assert (np.sort(found.indices, axis=1) == np.arange(12)).all()
    own = nearest(features[:1], features[:30], 1)
    assert own.indices[0, 0] == 0 and own.cosines[0, 0] == pytest.approx(1)


def test_neighbours_shared_with_themselves_are_all(clusters):
    features, _ = clusters
    found = nearest(features)
    assert found.shared(found) == 1
    assert nearest(features).shared(nearest(np.random.default_rng(0).standard_normal(features.shape))) < 0.6


def test_leave_one_out_is_what_a_fit_on_all_others_tells(clusters):
    features, labels = clusters
    told = linear_probe(features, labels)
    # The strength is chosen once, of all images; each fit below is the same ridge without one of them.
    values = features.astype(np.float64)
    scaled = (values - values.mean(axis=0)) / values.std(axis=0)
    targets = np.eye(3)[labels]

    def fit(keep, strength):
        design = np.column_stack([scaled[keep], np.ones(len(keep))])
        penalty = strength * len(scaled) * np.diag([*[1.0] * 7, 0.0])
        return np.linalg.solve(design.T @ design + penalty, design.T @ targets[keep])

    def alone(strength):
        rows = np.arange(60)
        return np.stack([np.append(scaled[row], 1) @ fit(np.delete(rows, row), strength) for row in rows])

    every = {strength: alone(strength) for strength in STRENGTHS}
    best = min(every, key=lambda strength: np.mean((targets - every[strength]) ** 2))
    assert told.tolist() == every[best].argmax(axis=1).tolist()


def test_what_is_apart_is_told_and_what_is_random_is_not(clusters):
    features, labels = clusters
    assert (linear_probe(features, labels) == labels).mean() > 0.95
    assert (nearest(features).classes(labels) == labels).mean() > 0.95
    noise = np.random.default_rng(1).standard_normal(features.shape)
    assert (linear_probe(noise, labels) == labels).mean() < 0.6
    trained = linear_probe(features[:20], labels[:20], features[20:], labels[20:])
    assert (trained == labels[:20]).mean() > 0.9


def test_constant_features_and_more_features_than_images_are_no_trouble():
    labels = np.array([0, 1, 0, 1, 0, 1])
    wide = np.random.default_rng(2).standard_normal((6, 40))
    wide[:, 0] = labels * 9
    wide[:, 1] = 5
    assert set(linear_probe(wide, labels)) <= {0, 1}
    assert np.isfinite(nearest(np.zeros((6, 4))).cosines).all()


def test_the_interval_is_wilsons():
    assert interval_95(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert interval_95(0, 10)[0] == pytest.approx(0) and interval_95(10, 10)[1] == pytest.approx(1)
