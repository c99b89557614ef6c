"""Every runtime computes the reference's function, whatever the format and the batch."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.artifact import describe
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import DataError, VitDeployError
from vit_deploy.exporters import COMPILERS, EXPORTERS, ExportOptions
from vit_deploy.runtimes import RUNTIMES
from vit_deploy.verification.tolerances import NOISE_FACTOR

# One batch alone where a file is run as it is.
BATCHES = {
    name: (1, 3) if record.has_fixed_batch else (None, 3) if record.exporter else (None,)
    for name, record in FORMATS.items()
}


def of(format, runtime, *others):
    """A parameter that is skipped where the runtime is not installed."""
    missing = RUNTIMES[runtime].missing()
    return pytest.param(format, runtime, *others, marks=pytest.mark.skipif(bool(missing), reason=f"needs {missing}"))


# What is compiled for one GPU does not run without it; tests/runtimes/test_tensorrt_runtime.py holds plans to this.
PAIRS = [
    of(format, runtime)
    for format, record in FORMATS.items()
    for runtime in record.runtime_names
    if format not in COMPILERS and not FORMATS.runtimes()[runtime].precisions
]
HALF = ("qnn",)  # they compute float32 in half
CASES = [of(*pair.values, batch) for pair in PAIRS for batch in BATCHES[pair.values[0]]]


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint()


@pytest.fixture(scope="module")
def seven_images(checkpoint):
    shape = (7, *checkpoint.config.image_size, checkpoint.config.channels)
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def write_keras(checkpoint, directory):
    from vit_deploy.model.vit import ViT

    ViT.from_checkpoint(checkpoint).save(directory / "model.keras")
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    return describe(checkpoint, directory, format="keras", precision="fp32", input=spec, model="model.keras")


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """The checkpoint in a format, made once for each batch."""
    made = {}

    def make(format, batch):
        if (format, batch) not in made:
            directory = tmp_path_factory.mktemp(format)
            if format == "keras":
                made[format, batch] = write_keras(checkpoint, directory)
            else:
                options = ExportOptions(batch=batch)
                spec = options.input_spec(checkpoint.config)
                artifact = describe(checkpoint, directory, format=format, precision="fp32", input=spec)
                EXPORTERS.load(format)().write(checkpoint, artifact, options)
                made[format, batch] = artifact
        return made[format, batch]

    return make


@pytest.mark.parametrize(("format", "runtime", "batch"), CASES)
def test_any_number_of_images_gives_the_references_output(checkpoint, exported, seven_images, format, runtime, batch):
    truth = forward(checkpoint, seven_images)
    tolerance = NOISE_FACTOR * np.abs(forward(checkpoint, seven_images, np.float32) - truth).max()
    if runtime in HALF:
        tolerance = 2**-8 * np.abs(truth).max()
    artifact = exported(format, batch)  # ahead of the runtime: one of them has to be loaded after TensorFlow
    with RUNTIMES.load(runtime)().open(artifact) as session:
        for count in (1, 2, 7):
            outputs = session.infer(seven_images[:count])
            assert outputs.dtype == np.float32
            assert outputs.shape == truth[:count].shape
            assert np.abs(outputs - truth[:count]).max() <= tolerance


@pytest.mark.parametrize(("format", "runtime"), PAIRS)
def test_opened_twice_it_gives_the_same(exported, seven_images, format, runtime):
    artifact = exported(format, BATCHES[format][0])
    engine = RUNTIMES.load(runtime)()
    with engine.open(artifact) as session:
        first = session.infer(seven_images)
    with engine.open(artifact) as session, engine.open(artifact) as another:
        assert np.array_equal(session.infer(seven_images), first)
        assert np.array_equal(another.infer(seven_images), first)
        assert session.provider == another.provider


@pytest.mark.parametrize(("format", "runtime"), PAIRS)
def test_images_of_another_size_are_refused(exported, seven_images, format, runtime):
    artifact = exported(format, BATCHES[format][0])
    with (
        RUNTIMES.load(runtime)().open(artifact) as session,
        pytest.raises(DataError, match="expected normalised float32 images"),
    ):
        session.infer(seven_images.transpose(0, 2, 1, 3))


@pytest.mark.parametrize(("format", "runtime"), PAIRS)
def test_a_foreign_file_is_an_error_that_names_it(checkpoint, tmp_path, format, runtime):
    spec = ExportOptions(batch=BATCHES[format][0]).input_spec(checkpoint.config)
    model = {"keras": "model.keras"}.get(format, "")
    artifact = describe(checkpoint, tmp_path, format=format, precision="fp32", input=spec, model=model)
    if format == "savedmodel":
        artifact.model_path.mkdir()
        (artifact.model_path / "saved_model.pb").write_bytes(b"\xffnot a model")
    else:
        artifact.model_path.write_bytes(b"\xffnot a model")
    with pytest.raises(VitDeployError, match=str(artifact.model_path)):
        RUNTIMES.load(runtime)().open(artifact).__enter__()
