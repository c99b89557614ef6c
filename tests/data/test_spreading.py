"""What a worker of a cluster asks for, gets and reads, without a cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.linear_bundle import write_bundle
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.data.embedding import Model
from vit_deploy.data.finding import find_source
from vit_deploy.data.items import Item
from vit_deploy.data.shipping import Onwards, Shipment
from vit_deploy.data.spreading import COPIES, Embedding, Evaluating, Other, needs_of
from vit_deploy.errors import DataError
from vit_deploy.runtimes import RuntimeOptions


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory):
    return read_artifact(write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32"))


def test_a_worker_asks_for_its_threads_its_gpu_and_memory_for_its_models(artifact):
    usual = Embedding(Model(artifact, "onnxruntime", RuntimeOptions(threads=3), batch=8))
    assert (needs_of(usual).cpus, needs_of(usual).gpus) == (3, 0)
    unasked = dataclasses.replace(usual, model=dataclasses.replace(usual.model, options=RuntimeOptions()))
    assert needs_of(unasked).cpus == 1
    on_gpu = dataclasses.replace(usual, model=dataclasses.replace(usual.model, options=RuntimeOptions(provider="cuda")))
    assert needs_of(on_gpu).gpus == 1
    two = Evaluating((artifact, artifact), ("onnxruntime",) * 2, RuntimeOptions(), batch=8)
    assert needs_of(two).memory - needs_of(usual).memory == COPIES * artifact.model_bytes
    checkpoint = Checkpoint.random(artifact.config, 1)
    beside = dataclasses.replace(two, other=Other(checkpoint))
    weights = sum(weight.nbytes for weight in checkpoint.weights.values())
    assert needs_of(beside).memory - needs_of(two).memory == COPIES * weights


def test_a_checkpoint_travels_with_all_that_it_is(artifact):
    checkpoint = Checkpoint.random(artifact.config, 1, preprocess=Preprocess.for_channels(3))
    other = pickle.loads(pickle.dumps(Other(checkpoint)))
    assert other.model.config == checkpoint.config and other.model.preprocess == checkpoint.preprocess
    assert other.model.provenance == checkpoint.provenance
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(other.model.weights[name], weight)
    assert pickle.loads(pickle.dumps(Other(artifact, "onnxruntime"))).model.directory == Path(artifact.directory)


class Numbered:
    """Images that are named by their places, and how many of them were read."""

    identity, carries_content = "numbered", True

    def __init__(self) -> None:
        self.read = 0

    def total(self) -> int:
        return 10_000

    def items(self, start: int = 0):
        for place in range(start, self.total()):
            self.read += 1
            yield Item(str(place))


def test_groups_are_read_on_from_the_last_and_anew_where_they_lie_before_or_far_behind():
    source = Numbered()
    onwards = Onwards(source)
    for start, read in ((0, 4), (8, 8), (12, 4), (4, 4), (9_000, 4), (9_998, 996)):
        before = source.read
        names = [item.name for item in onwards.take(start, 4)]
        assert names == [str(place) for place in range(start, min(start + 4, 10_000))]
        assert source.read - before == read


class Nothing:
    """Work that gives the names of images and runs nothing."""

    artifacts = runtimes = ()
    options = RuntimeOptions()

    def open(self, artifacts):
        return contextlib.nullcontext(lambda items: [item.name for item in items])


def test_a_file_that_a_node_does_not_see_is_no_broken_image_where_the_node_lists_the_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a shipment leaves its process there
    (tmp_path / "here.png").write_bytes(b"an image")
    (tmp_path / "all.txt").write_text("here.png\nelsewhere.png\n")
    source = find_source([str(tmp_path / "all.txt")])
    with Shipment(Nothing(), (), source, str(tmp_path)).open() as answer:
        assert answer(b"", 0, 1) == ["here.png"]
        with pytest.raises(DataError, match=r"elsewhere\.png is not there"):
            answer(b"", 1, 1)
