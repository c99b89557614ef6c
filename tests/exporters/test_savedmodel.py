import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.exporters.variants import VARIANTS, assert_same_function, exported, pixels, trained
from vit_deploy.errors import EngineError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.failures import explained_tensorflow_errors
from vit_deploy.exporters.savedmodel.export import ESSENTIALS, SavedModelExporter

ALONE = """
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

class Absent(MetaPathFinder, Loader):
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] in ("keras", "tf_keras", "vit_deploy") else None

    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name)

sys.meta_path.insert(0, Absent())
import numpy as np
import tensorflow as tf

serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = np.load(sys.argv[2])
np.save(sys.argv[3], serve(images=tf.constant(images))["logits"].numpy())
assert "keras" not in sys.modules and "vit_deploy" not in sys.modules
"""

EXPORT = """
import sys
from pathlib import Path

from tests.exporters.variants import exported, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.savedmodel.export import SavedModelExporter

exported(SavedModelExporter(), trained(), Path(sys.argv[1]), ExportOptions())
"""


def run(code: str, *arguments: Path) -> None:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True)


# A SavedModel is the traced function, which the quick tests of TFLite files compare for every variant, and its weights.
QUICK = {"layer_norm-pre", "rms_norm-post", "swiglu", "no head, sequence", "DeiT"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_every_variant_computes_the_reference(name, tmp_path):
    checkpoint = trained(**VARIANTS[name])
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 3))

    artifact = exported(SavedModelExporter(), checkpoint, tmp_path, ExportOptions())

    serve = tf.saved_model.load(str(artifact.model_path)).signatures["serving_default"]
    assert_same_function(serve(images=images)[checkpoint.config.output_name].numpy(), checkpoint, images)


@pytest.mark.slow  # the snippet of a SavedModel is run without them as well
def test_it_loads_where_neither_keras_nor_this_package_can_be_imported(tmp_path):
    checkpoint = trained()
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    np.save(tmp_path / "images.npy", images)

    artifact = exported(SavedModelExporter(), checkpoint, tmp_path, ExportOptions())
    run(ALONE, artifact.model_path, tmp_path / "images.npy", tmp_path / "outputs.npy")

    assert_same_function(np.load(tmp_path / "outputs.npy"), checkpoint, images)


def test_the_signature_takes_images_of_any_batch_and_gives_logits(tmp_path):
    artifact = exported(SavedModelExporter(), trained(), tmp_path, ExportOptions())

    serve = tf.saved_model.load(str(artifact.model_path)).signatures["serving_default"]

    assert serve.structured_input_signature[1]["images"].shape.as_list() == [None, 24, 32, 3]
    assert serve.structured_input_signature[1]["images"].dtype == tf.float32
    assert {name: output.shape.as_list() for name, output in serve.structured_outputs.items()} == {"logits": [None, 5]}


def test_a_fixed_batch_is_part_of_the_signature(tmp_path):
    checkpoint = trained(include_top=False, pooling="mean")
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))

    artifact = exported(SavedModelExporter(), checkpoint, tmp_path, ExportOptions(batch=2))

    serve = tf.saved_model.load(str(artifact.model_path)).signatures["serving_default"]
    assert serve.structured_input_signature[1]["images"].shape.as_list() == [2, 24, 32, 3]
    assert_same_function(serve(images=images)["features"].numpy(), checkpoint, images)


def test_pixels_go_in_when_preprocessing_is_inside(tmp_path):
    checkpoint = trained()
    raw = pixels(checkpoint, 2)

    artifact = exported(SavedModelExporter(), checkpoint, tmp_path, ExportOptions(include_preprocessing=True))

    serve = tf.saved_model.load(str(artifact.model_path)).signatures["serving_default"]
    assert serve.structured_input_signature[1]["images"].dtype == tf.uint8
    outputs = serve(images=tf.constant(raw))["logits"].numpy()
    assert_same_function(outputs, checkpoint, checkpoint.preprocess.normalize(raw))


def test_its_variables_are_the_weights_under_their_canonical_names(tmp_path):
    checkpoint = trained()

    artifact = exported(SavedModelExporter(), checkpoint, tmp_path, ExportOptions())

    loaded = tf.saved_model.load(str(artifact.model_path))
    assert set(loaded.weights) == set(checkpoint.weights)
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(loaded.weights[name].numpy(), weight)


def test_the_essentials_are_one_json_object_in_the_assets(tmp_path):
    artifact = exported(SavedModelExporter(), trained(), tmp_path, ExportOptions())

    assert json.loads((artifact.model_path / ESSENTIALS).read_text()) == artifact.essentials()


@pytest.mark.slow
def test_two_exports_differ_in_the_fingerprint_alone(tmp_path):
    files = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    run(EXPORT, tmp_path / "one")
    exported(SavedModelExporter(), trained(num_layers=1), tmp_path / "three", ExportOptions())  # counts functions up
    exported(SavedModelExporter(), trained(), tmp_path / "two", ExportOptions())
    for name in ("one", "two"):
        folder = tmp_path / name / "saved_model"
        files.append(
            {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        )

    one, two = files
    assert set(one) == set(two)
    assert "saved_model.pb" in one
    assert {name for name in one if one[name] != two[name]} <= {"fingerprint.pb"}


def test_a_full_disk_stays_an_os_error_and_other_failures_are_ours():
    with pytest.raises(OSError, match="No space left on device"), explained_tensorflow_errors("writing"):
        raise tf.errors.ResourceExhaustedError(None, None, "/x/variables.data; No space left on device")
    with (
        pytest.raises(EngineError, match="failed writing the model: it broke"),
        explained_tensorflow_errors("writing the model"),
    ):
        raise tf.errors.InternalError(None, None, "it broke\n\tat line 3")


def full_device(tmp_path: Path) -> Path:
    path = tmp_path / "full"
    path.symlink_to("/dev/full")
    return path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_tensorflow_says_of_a_full_device_is_understood(tmp_path):
    path = full_device(tmp_path)
    with pytest.raises(OSError, match="No space left on device"), explained_tensorflow_errors("writing"):
        tf.io.write_file(str(path), "x" * 100_000)
