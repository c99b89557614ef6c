"""A graph that is not what the exporter takes it for is an error, and no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exporters.onnx_files import write
from tests.exporters.variants import SMALL
from vit_deploy.errors import ExportError
from vit_deploy.model import attention, feed_forward, layers


def test_an_operator_that_tf2onnx_only_logs_as_unsupported_is_an_error(tmp_path, monkeypatch, capfd):
    import tensorflow as tf

    monkeypatch.setattr(feed_forward, "ACTIVATIONS", {**feed_forward.ACTIVATIONS, "relu": tf.math.bessel_i0e})

    with pytest.raises(ExportError, match="BesselI0e"):
        write(tmp_path, activation="relu")

    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_an_operator_that_is_not_known_to_be_portable_is_an_error(tmp_path, monkeypatch):
    from keras import ops

    monkeypatch.setattr(feed_forward, "ACTIVATIONS", {**feed_forward.ACTIVATIONS, "relu": ops.softplus})

    with pytest.raises(ExportError, match="Softplus"):
        write(tmp_path, activation="relu")


def test_weights_that_the_graph_does_not_use_are_an_error(tmp_path, monkeypatch):
    original = attention.Attention._products
    monkeypatch.setattr(
        attention.Attention,
        "_products",
        lambda self, query, key, value, *others: original(self, query, key, query, *others),
    )

    with pytest.raises(ExportError, match=r"block_0\.attention\.value\.kernel.*block_1\.attention\.value\.bias"):
        write(tmp_path)


def test_another_token_in_the_place_of_the_class_token_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "take_tokens", lambda tokens, start, count: tokens[:, start + 1 : start + 1 + count])

    with pytest.raises(ExportError, match="expected Squeeze of Slice of Reshape for the first token"):
        write(tmp_path)


def test_positions_that_are_not_added_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(layers.PositionEmbedding, "call", lambda self, tokens, training=None: tokens * self.table)

    with pytest.raises(ExportError, match="expected one Add"):
        write(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_os_error(tmp_path):
    (tmp_path / "model.onnx").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path, **{**SMALL, "embed_dim": 96, "mlp_dim": 256})
