"""What is around a training: nothing is left of bad input, and everything of what was trained until it is safe."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit_deploy.compression import CompressOptions, stage
from vit_deploy.compression.job import RESULT
from vit_deploy.compression.stage import compress
from vit_deploy.compression.state import State, save_state
from vit_deploy.compression.training_folder import training_folder
from vit_deploy.errors import ConfigError, DataError, EngineError, OutputError

OPTIONS = CompressOptions("prune", epochs=1)


@pytest.fixture
def run(small, striped, tmp_path, monkeypatch):
    """`compress` with a stand-in for the process that trains, and no need for what that needs."""
    monkeypatch.setattr(stage, "check", lambda method: None)

    def call(worker: str, state=tmp_path / "made" / "out.training", **changes: Any):
        monkeypatch.setattr(stage, "WORKER", ("-c", worker))
        with training_folder(state) as folder:
            return compress(**{"checkpoint": small, "options": OPTIONS, "data": striped, "state": folder, **changes})

    return call


SAYS_BAD_INPUT = """
import json, sys
print("a library that prints")
print(json.dumps({"error": "DataError", "message": "cut.png is no image", "fix": "remove it"}))
sys.exit(2)
"""
DIES = "import sys; print('out of memory', file=sys.stderr); sys.exit(9)"


def test_an_image_that_turns_out_to_be_broken_leaves_nothing_behind(run, tmp_path):
    with pytest.raises(DataError, match=r"cut\.png is no image") as error:
        run(SAYS_BAD_INPUT)
    assert error.value.fix == "remove it"
    assert list(tmp_path.iterdir()) == []


def test_what_was_trained_before_an_error_is_kept(run, tmp_path):
    state = tmp_path / "out.training"
    state.mkdir()
    save_state(State(3), state, "another job")
    with pytest.raises(EngineError, match=r"exit 9\): out of memory") as error:
        run(DIES, state)
    assert "run the same command again" in error.value.fix
    assert (state / "state.npz").exists()


@pytest.mark.parametrize(("method", "norms"), [("prune", "layer_norm"), ("qat", "rms_norm")])
def test_the_result_of_the_process_becomes_a_checkpoint_and_stays_until_it_is_saved(
    run, small, tmp_path, method, norms
):
    about = {"history": [{"epoch": 1, "top1": 1.0}], "best_epoch": 1, "seconds": 1.0, "ranges": {}}
    weights = {name: np.asarray(tensor) for name, tensor in stage.ready(small, centred=method == "qat").weights.items()}
    weights["head.kernel"] = weights["head.kernel"] * 2
    np.savez(tmp_path / "weights.npz", **weights)
    told: list[Any] = []
    result = run(
        f"""
import json, shutil, sys, zipfile
print(json.dumps({{"doing": "training"}}))
print(json.dumps({{"epoch": {{"epoch": 1, "top1": 1.0}}}}))
shutil.copy({str(tmp_path / "weights.npz")!r}, sys.argv[1] + "/{RESULT}")
with zipfile.ZipFile(sys.argv[1] + "/{RESULT}", "a") as archive:
    archive.writestr("about.json", {json.dumps(about)!r})
""",
        on_epoch=told.append,
        options=CompressOptions(method, epochs=1),
    )
    assert result.checkpoint.config.normalization_type == norms
    assert told == [{"epoch": 1, "top1": 1.0}]
    np.testing.assert_array_equal(result.checkpoint.weights["head.kernel"], weights["head.kernel"])
    assert result.checkpoint.provenance[-1].action == "compress"
    assert result.checkpoint.provenance[-1].facts["from"] == small.digest()
    assert (len(result.trained_on), len(result.held_out)) == (48, 12)
    assert (tmp_path / "made" / "out.training" / RESULT).exists()


def test_a_file_in_the_place_of_the_training_is_told(run, tmp_path):
    (tmp_path / "out.training").write_text("mine")
    with pytest.raises(OutputError, match=r"out\.training, where the training is to be kept, is a file"):
        run(DIES, tmp_path / "out.training")
    assert (tmp_path / "out.training").read_text() == "mine"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_place_that_cannot_be_written_is_told(run):
    with pytest.raises(OutputError, match=r"cannot write /proc/nowhere/out\.training: No such file"):
        run(DIES, Path("/proc/nowhere/out.training"))


def test_images_that_do_not_fit_are_told_of_the_model(run, striped, tmp_path):
    data = np.load(striped)
    np.savez(tmp_path / "more.npz", images=data["images"], labels=data["labels"] + 3)
    with pytest.raises(DataError, match=r"more\.npz has labels from 3 to 5, the model has 3 classes"):
        run(DIES, data=tmp_path / "more.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["more.npz"]


def test_a_model_without_a_head_is_refused(run, small):
    with pytest.raises(DataError, match="has no head"):
        run(DIES, checkpoint=without_head(small))


def test_a_speedup_that_no_sizes_have_is_refused_before_an_image_is_read(run, tmp_path):
    said: list[str] = []
    with pytest.raises(ConfigError, match=r"no sizes of the blocks give a speed-up of 90\.0"):
        run(DIES, options=CompressOptions("shrink", speedup=90.0), progress=said.append)
    assert said == [] and list(tmp_path.iterdir()) == []


def without_head(checkpoint):
    config = checkpoint.config.replace(include_top=False)
    weights = {name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith("head.")}
    return dataclasses.replace(checkpoint, config=config, weights=weights)
