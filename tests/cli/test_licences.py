"""Where a model comes from and its licence: recorded everywhere, and required where a team wants that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import vit_deploy
from tests.cli.conftest import ROOT, Run
from tests.hub_server import Hub
from vit_deploy import checkpoints
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.origin import Origin, licence_in, origin_in
from vit_deploy.errors import LicenceError

NAME = "hf:org/vit"
KERAS = ROOT / "tests" / "peers" / "golden" / "keras_hub" / "vit_classifier_preset"


@pytest.fixture
def stocked(hub: Hub, timm_files: dict[str, bytes]) -> Hub:
    hub.add("org/vit", timm_files)
    return hub


@pytest.fixture
def local(tmp_path: Path, timm_files: dict[str, bytes]) -> Path:
    """A folder that somebody has downloaded, card included."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name, content in timm_files.items():
        (folder / name).write_bytes(content)
    return folder


def expected(hub: Hub) -> Origin:
    repository = hub.repositories["org/vit"]
    import hashlib

    digest = hashlib.sha256(repository.files["model.safetensors"]).hexdigest()
    url = f"{hub.endpoint}/org/vit/tree/{repository.commit}"
    return Origin(NAME, "org/vit", "main", repository.commit, url, "apache-2.0", files={"model.safetensors": digest})


@pytest.mark.parametrize("format", ["onnx", "tflite", "savedmodel"])
def test_origin_and_licence_are_in_the_manifest_and_in_the_model_file(
    stocked: Hub, run: Run, tmp_path: Path, format: str
) -> None:
    done = run("export", NAME, "--format", format, "-o", tmp_path / "made", "--require-licence", "mit,apache-2.0")
    assert done.code == 0, done.err
    assert "org/vit at " in done.err and "licence apache-2.0" in done.err
    folder = tmp_path / "made" / f"{format}-fp32"
    manifest = json.loads((folder / "artifact.json").read_text())
    assert manifest["provenance"][0] == {"action": "origin", **expected(stocked).to_dict()}
    alone = shutil.move(folder / manifest["model"], tmp_path / Path(manifest["model"]).name)  # without its manifest
    found = run("inspect", alone, "--json").document["results"][0]
    assert found["licence"] == "apache-2.0"
    assert found["origin"] == expected(stocked).to_dict()
    shown = " ".join(run("inspect", alone).out.split())
    assert "licence" in shown and f"org/vit at {expected(stocked).commit}" in shown


def test_a_checkpoint_that_was_converted_keeps_its_origin(stocked: Hub, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    assert run("convert", NAME, "-o", target).code == 0
    assert origin_in(checkpoints.load(target).provenance) == expected(stocked)
    assert run("inspect", target, "--require-licence", "apache-2.0").code == 0
    assert run("inspect", target, "--require-licence", "mit").code == 1


def test_another_licence_is_refused_before_the_weights_are_fetched(stocked: Hub, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    done = run("convert", NAME, "-o", target, "--require-licence", "mit,bsd-3-clause", "--json")
    assert done.code == 1 and not target.exists()
    assert done.document["ok"] is False and done.document["error"]["type"] == "LicenceError"
    assert f"the licence of {NAME} is apache-2.0; required is mit or bsd-3-clause" in done.err
    assert stocked.asked("/storage/") == [] and stocked.asked("model.safetensors", "HEAD") == []


def test_a_model_that_states_no_licence_is_refused(hub: Hub, timm_files: dict[str, bytes], run: Run) -> None:
    config = json.loads(timm_files["config.json"])
    del config["pretrained_cfg"]["license"]
    files = {"config.json": json.dumps(config).encode(), "README.md": b"# A model\nlicense: mit\n"}
    hub.add("org/vit", {**timm_files, **files})
    done = run("inspect", NAME, "--require-licence", "mit")
    assert done.code == 1 and f"{NAME} states no licence; required is mit" in done.err
    assert run("inspect", KERAS, "--require-licence", "mit").code == 1
    assert run("inspect", NAME).code == 0


def test_a_local_folder_has_the_licence_of_its_card(local: Path, run: Run) -> None:
    done = run("inspect", local, "--json", "--require-licence", "Apache-2.0")
    assert done.code == 0, done.err
    assert done.document["results"][0]["licence"] == "apache-2.0"
    refused = run("inspect", local, "--require-licence", "mit")
    assert refused.code == 1 and f"the licence of {local} is apache-2.0" in refused.err


def test_code_beside_a_local_folders_weights_is_named_and_not_run(local: Path, run: Run) -> None:
    config = json.loads((local / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling.Mine"}}
    (local / "config.json").write_text(json.dumps(config))
    done = run("inspect", local)
    assert done.code == 0 and "not run, as no code of a model is: auto_map in config.json" in done.err


@pytest.fixture
def artifact(stocked: Hub, tmp_path: Path) -> Iterator[Path]:
    yield vit_deploy.export(NAME, tmp_path / "made", formats="onnx").result.directory


def test_artifacts_are_refused_by_the_licence_that_they_record(artifact: Path, run: Run, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 40)).save(tmp_path / "photo.png")
    commands = (["inspect", artifact], ["predict", artifact, tmp_path / "photo.png"], ["compare", artifact, artifact])
    for command in commands:
        assert run(*command, "--require-licence", "apache-2.0").code == 0, command
        refused = run(*command, "--require-licence", "mit")
        assert refused.code == 1 and f"the licence of {artifact} is apache-2.0" in refused.err


def test_a_scale_has_no_licence_to_ask_for(run: Run) -> None:
    done = run("export", "pico", "--format", "onnx", "--require-licence", "mit")
    assert done.code == 2 and "pico is a scale with random weights" in done.err


def test_the_functions_refuse_as_the_commands_do(stocked: Hub, tmp_path: Path) -> None:
    with pytest.raises(LicenceError, match=r"the licence of hf:org/vit is apache-2\.0"):
        vit_deploy.convert(NAME, tmp_path / "out.safetensors", reading=CheckpointOptions(require_licence=("mit",)))
    saved = vit_deploy.convert(
        NAME, tmp_path / "out.safetensors", reading=CheckpointOptions(require_licence=("apache-2.0",))
    )
    assert licence_in(saved.result.checkpoint.provenance) == "apache-2.0"
