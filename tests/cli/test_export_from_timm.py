"""One command from a timm checkpoint to an ONNX file for images of another size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from peers import timm_families

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm"
TOLERANCE = 1e-5  # of the largest logit
SIZE = timm_families.NEW_SIZE
IMAGES = timm_families.drawn_images(*SIZE)
QUICK = ("plain", "registers_gap")  # that they are read right is in quick tests of the checkpoints


def logits_after_export(run: Any, source: Path, target: Path) -> NDArray[np.float32]:
    size = "x".join(map(str, SIZE))
    said = run("export", source, "--format", "onnx", "--image-size", size, "-o", target, "--json")
    assert said.code == 0, said.err
    (result,) = said.document["results"]
    assert result["parity"]["ok"]
    session = onnxruntime.InferenceSession(target / "onnx-fp32" / "model.onnx")
    return np.asarray(session.run(None, {"images": IMAGES})[0])


def assert_same(found: NDArray[Any], expected: NDArray[Any]) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_the_exported_file_answers_as_timm_did_at_that_size(run: Any, tmp_path: Path) -> None:
    source = GOLDEN / "distilled"
    assert_same(logits_after_export(run, source, tmp_path / "out"), np.load(source / "resized_output.npy"))


@pytest.mark.peers
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in timm_families.RESIZED]
)
def test_the_exported_file_answers_as_timm_does_at_that_size(name: str, run: Any, timm: Any, tmp_path: Path) -> None:
    model = timm_families.make(timm, name, img_size=[48, 32])
    timm_families.save(timm, name, model, tmp_path / "saved")
    found = logits_after_export(run, tmp_path / "saved", tmp_path / "out")
    model.set_input_size(img_size=SIZE)
    assert_same(found, timm_families.output(model, IMAGES))
