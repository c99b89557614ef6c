"""From the files of every program that a checkpoint can come from to all three formats, with that program's answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import vit_deploy
from tests.checkpoints import dl_techniques_models, google_vit
from tests.peers import timm_families
from vit_deploy import checkpoints
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export

GOLDEN = Path(timm_families.__file__).parent / "golden"
FORMATS = ("savedmodel", "onnx", "tflite")
TOLERANCE = 1e-5  # of the largest answer
QUICK = {"google/imagenet21k"}  # timm's are exported in quick tests of the command line


def names() -> Iterator[str]:
    yield from (f"google/{path.stem}" for path in sorted((GOLDEN / "google").glob("*.npz")))
    yield from (f"keras_hub/{path.stem}" for path in sorted((GOLDEN / "keras_hub").glob("*.keras")))
    yield from (f"{family}/{path.name}" for family in ("timm", "huggingface") for path in (GOLDEN / family).iterdir())


def recorded(name: str) -> tuple[Path, dict[str, Any], NDArray[Any], NDArray[Any]]:
    """The checkpoint, what has to be stated of it, images, and what its own program answered."""
    path = GOLDEN / name
    if name.startswith("huggingface/"):
        with np.load(path / "expected.npz") as expected:
            return path, {}, expected["images"], expected["answer"]
    if name.startswith("timm/"):
        images = timm_families.drawn_images(*timm_families.SMALL["img_size"])
        return path, {}, images, np.load(path / "output.npy")
    answers = np.load(path.with_name(f"{path.name}_answers.npy"))
    if name.startswith("google/"):
        stated = {"image_size": google_vit.IMAGE_SIZE}
        return path.with_suffix(".npz"), stated, google_vit.draw_images(), answers
    keras = path.with_suffix(".keras")
    loaded = checkpoints.load(keras)
    height, width = loaded.config.image_size
    whole = loaded.preprocess.input_size or (height, width)  # its program crops what patches do not divide
    images = np.random.default_rng(9).standard_normal((2, *whole, 3))[:, :height, :width]
    return keras, {}, images, answers


def assert_exported(path: Path, stated: dict[str, Any], images: NDArray[Any], answers: Any, target: Path) -> None:
    jobs, _ = plan(FORMATS, ["fp32"])
    results = export(checkpoints.load(path, config=stated), target, jobs)
    assert [(result.artifact.format, result.parity.failures) for result in results] == [(name, ()) for name in FORMATS]
    for result in results:
        with vit_deploy.session(result.artifact) as session:
            found = session.infer(images.astype(np.float32))
        assert found.shape == answers.shape
        assert np.abs(found - answers).max() <= TOLERANCE * np.abs(answers).max(), result.artifact.format


@pytest.mark.parametrize(
    "name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in sorted(names())]
)
def test_a_file_of_another_program_is_exported_to_every_format_and_answers_as_that_did(
    name: str, tmp_path: Path
) -> None:
    assert_exported(*recorded(name), tmp_path / "out")


@pytest.mark.slow
def test_a_vit_of_dl_techniques_is_exported_to_every_format_and_answers_as_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dl_techniques_models.know_the_smallest_scale(monkeypatch)
    model = dl_techniques_models.vit()
    model.save(tmp_path / "model.keras")
    images = (
        np.random.default_rng(3).standard_normal((2, *dl_techniques_models.DEFAULTS["input_shape"])).astype(np.float32)
    )
    assert_exported(tmp_path / "model.keras", {}, images, np.asarray(model(images)), tmp_path / "out")
