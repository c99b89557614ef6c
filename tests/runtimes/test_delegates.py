"""LiteRT's delegates, one of which is compiled here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from linear_tflite import write_model

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.litert import LiteRT

EXP, NOTHING = 47, -1  # codes of the schema of TFLite files


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A delegate that takes the operators with a code."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")

    def compile(code):
        path = tmp_path_factory.mktemp("delegate") / "libexponential.so"
        source = Path(__file__).with_name("delegate.c")
        subprocess.run([compiler, f"-DTAKES={code}", "-shared", "-fPIC", "-o", path, source, "-lm"], check=True)
        return str(path)

    return compile


@pytest.fixture
def exponential(make_artifact, weight):
    return write_model(make_artifact("tflite", 1), weight, tail=lambda x: tf.exp(x * 0.01) + 1.0)


def expected(images, weight):
    return np.exp(images.reshape(len(images), -1) @ weight * 0.01) + 1.0


def test_what_a_delegate_leaves_is_told_by_counts(exponential, library, weight, seven_images):
    with LiteRT().open(exponential, RuntimeOptions(provider=library(EXP))) as session:
        assert session.provider == "libexponential.so"
        others = {name: count for name, count in session.placement.items() if name != session.provider}
        assert session.placement["libexponential.so"] == 1 and others.keys() == {"xnnpack"} and others["xnnpack"] >= 3
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), rtol=1e-5)


def test_a_delegate_that_takes_nothing_is_an_error_that_says_what_runs_where(exponential, library):
    with pytest.raises(EngineError, match=r"libexponential\.so takes none of the \d+ operators of .*: \d+ on xnnpack"):
        LiteRT().open(exponential, RuntimeOptions(provider=library(NOTHING))).__enter__()


def test_without_any_delegate_the_kernels_are_the_interpreters_own(exponential, weight, seven_images):
    with LiteRT().open(exponential, RuntimeOptions(provider="cpu")) as session:
        assert session.provider == "cpu" and session.placement.keys() == {"cpu"}
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), rtol=1e-5)
    with LiteRT().open(exponential) as usual:
        assert usual.placement == {"xnnpack": session.placement["cpu"]}


def test_what_xnnpack_leaves_is_told_by_counts(make_artifact, weight):
    def tail(x):
        return tf.exp(tf.cumsum(x, axis=1) * 0.01) + 1.0

    artifact = write_model(make_artifact("tflite", 1), weight, tail=tail)
    for provider, name in ((None, "cpu"), ("xnnpack", "xnnpack")):
        with LiteRT().open(artifact, RuntimeOptions(provider=provider)) as session:
            assert session.provider == name
            assert session.placement["cpu"] == 1 and session.placement["xnnpack"] >= 3


def test_a_library_that_is_missing_or_no_delegate_is_an_error(exponential, tmp_path):
    def refused(path):
        with pytest.raises(EngineError) as caught:
            LiteRT().open(exponential, RuntimeOptions(provider=str(path))).__enter__()
        return str(caught.value)

    assert "there is no delegate" in refused(tmp_path / "libnone.so")
    assert "there is no delegate libnone.so" in refused("libnone.so")
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    assert f"{text} cannot be loaded as a delegate: " in refused(text)
    import _ctypes

    assert "does not export tflite_plugin_create_delegate" in refused(_ctypes.__file__)
