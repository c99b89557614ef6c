from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from linear_tflite import write_model

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.litert import LiteRT


@pytest.fixture(scope="module")
def linear(tmp_path_factory, weight):
    """Bytes of the linear model, by batch."""
    files = {}

    def write(artifact):
        batch = artifact.input.batch
        if batch not in files:
            files[batch] = write_model(artifact, weight).model_path.read_bytes()
        artifact.model_path.write_bytes(files[batch])
        return artifact

    return write


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_goes_through_any_batch(make_artifact, linear, weight, seven_images, batch, count):
    with LiteRT().open(linear(make_artifact("tflite", batch))) as session:
        outputs = session.infer(seven_images[:count])
        assert session.provider == "xnnpack"
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, seven_images[:count].reshape(count, -1) @ weight, atol=1e-4)


def test_an_output_stays_when_the_next_call_is_made(make_artifact, linear, seven_images):
    with LiteRT().open(linear(make_artifact("tflite", 1))) as session:
        first = session.infer(seven_images[:1])
        kept = first.copy()
        assert not np.array_equal(session.infer(seven_images[1:2]), kept)
    assert np.array_equal(first, kept)


def test_an_operator_that_xnnpack_leaves_makes_the_provider_cpu(make_artifact, weight, seven_images):
    artifact = write_model(make_artifact("tflite", 1), weight, tail=lambda x: tf.cumsum(x, axis=1))
    with LiteRT().open(artifact) as session:
        assert session.provider == "cpu"
        outputs = session.infer(seven_images)
    np.testing.assert_allclose(outputs, (seven_images.reshape(7, -1) @ weight).cumsum(axis=1), atol=1e-4)


def test_an_operator_in_the_middle_makes_the_provider_cpu(make_artifact, weight):
    artifact = write_model(make_artifact("tflite", 1), weight, tail=lambda x: tf.exp(tf.cumsum(x, axis=1)) + 1.0)
    with LiteRT().open(artifact) as session:
        assert session.provider == "cpu"


def test_integer_input_and_output_are_hidden(make_artifact, weight, seven_images):
    artifact = write_model(make_artifact("tflite", 1), weight, samples=seven_images)
    plain = Interpreter(model_path=str(artifact.model_path))
    plain.allocate_tensors()
    (given,), (result,) = plain.get_input_details(), plain.get_output_details()
    scale, zero_point = given["quantization"]
    artifact = make_artifact("tflite", 1, dtype="int8", scale=float(scale), zero_point=int(zero_point))
    with LiteRT().open(artifact) as session:
        outputs = session.infer(seven_images)
    truth = seven_images.reshape(7, -1) @ weight
    step = result["quantization"][0]
    # Int8 weights and inputs cost a part in a hundred or so; a forgotten scale or zero point costs many steps.
    assert np.abs(outputs - truth).max() < 0.02 * np.abs(truth).max() + step
    plain.set_tensor(
        given["index"], np.clip(np.round(seven_images[:1] / scale) + zero_point, -128, 127).astype(np.int8)
    )
    plain.invoke()
    stored = plain.get_tensor(result["index"]).astype(np.float64)
    np.testing.assert_allclose(outputs[:1], (stored - result["quantization"][1]) * step, rtol=1e-6)


def test_threads_do_not_change_the_answer(make_artifact, linear, seven_images):
    artifact = linear(make_artifact("tflite", 3))
    answers = []
    for threads in (None, 1, 2):
        with LiteRT().open(artifact, RuntimeOptions(threads=threads)) as session:
            answers.append(session.infer(seven_images))
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    np.testing.assert_allclose(answers[2], answers[0], atol=1e-5)


def test_a_provider_that_does_not_run_it_is_an_error(make_artifact, linear):
    artifact = linear(make_artifact("tflite", 1))
    with pytest.raises(EngineError, match=r"has no provider 'cuda'(?s:.*)choose xnnpack, cpu, or the path"):
        LiteRT().open(artifact, RuntimeOptions(provider="cuda")).__enter__()
    with LiteRT().open(artifact, RuntimeOptions(provider="xnnpack")) as session:
        assert session.provider == "xnnpack"


@pytest.mark.parametrize("content", [None, b"", b"not a model at all", b"\x20\0\0\0TFL3" + b"\0" * 60])
def test_a_missing_or_corrupt_file_is_an_error_with_its_path(make_artifact, content):
    artifact = make_artifact("tflite", 1)
    if content is not None:
        artifact.model_path.write_bytes(content)
    with pytest.raises(EngineError, match=str(artifact.model_path)):
        LiteRT().open(artifact).__enter__()


def test_a_file_that_is_not_the_bundles_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("tflite", 1), weight, output="features")
    with pytest.raises(EngineError, match="has no output logits; it has features"):
        LiteRT().open(artifact).__enter__()
    with pytest.raises(EngineError, match=r"takes images \(1, 6, 5, 3\); its manifest says images \(2, 6, 5, 3\)"):
        LiteRT().open(make_artifact("tflite", 2)).__enter__()
