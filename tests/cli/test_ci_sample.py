"""The workflow of `samples/ci` runs as it stands, and stops a release whose artifact differs."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
from test_export import damage

from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.verification.user_limits import read_limits

CI = Path(__file__).parents[2] / "samples" / "ci"


def commands(text):
    """The steps' commands: one on the line of `run:`, or folded on the lines below it."""
    found = re.findall(r"^ +run: (?:>-\n((?: {10}.*\n)+)|(.*)\n)", text, re.M)
    return [shlex.split(" ".join((folded or plain).split())) for folded, plain in found]


@pytest.fixture
def workflow(tmp_path, monkeypatch, make_checkpoint):
    """Its vit-deploy commands, in a folder that has the checkpoint it names."""
    text = (CI / "verify.yml").read_text(encoding="utf-8")
    checkpoint = re.search(r"^  CHECKPOINT: (\S+)$", text, re.M)[1]
    monkeypatch.chdir(tmp_path)
    Path(checkpoint).parent.mkdir()
    checkpoints.save(make_checkpoint(), Path(checkpoint))
    install, *steps = commands(text)
    assert install == ["pip", "install", "vit-deploy[cpu]"] and all(step[0] == "vit-deploy" for step in steps)
    return [[word.replace("$CHECKPOINT", checkpoint) for word in step[1:]] for step in steps]


def test_a_good_model_passes_and_leaves_its_reports(run, workflow):
    export, verify = workflow
    assert run(*export).code == 0
    result = run(*verify)
    assert result.code == 0, result.err
    assert result.err.count("::notice title=") == 2
    assert ElementTree.parse("reports/verify.xml").getroot().get("failures") == "0"
    assert "2 of 2 compute the same function" in Path("reports/verify.md").read_text(encoding="utf-8")


def test_a_damaged_model_stops_the_job_with_an_annotation(run, workflow, bundles, make_checkpoint):
    _, verify = workflow
    for format in ("onnx", "tflite"):
        shutil.copytree(bundles[format], Path(f"artifacts/model/{format}-fp32"))
    copied = Path("artifacts/model/onnx-fp32")
    artifact = read_artifact(copied)
    damage(artifact.model_path, make_checkpoint())
    write_manifest(artifact)
    result = run(*verify)
    assert result.code == 1 and "::error title=artifacts/model/onnx-fp32" in result.err
    assert ElementTree.parse("reports/verify.xml").getroot().get("failures") != "0"


def test_it_asks_for_no_file_that_a_repository_of_models_lacks_and_fetches_what_lfs_keeps():
    text = (CI / "verify.yml").read_text(encoding="utf-8")
    assert "cache" not in text  # setup-python's own fails where there are no requirements to hash
    assert re.search(r"uses: actions/checkout@v4\n +with:\n +lfs: true\n", text)


@pytest.mark.peers
def test_the_workflow_is_yaml_with_the_steps_in_order():
    yaml = pytest.importorskip("yaml")
    steps = yaml.safe_load((CI / "verify.yml").read_text(encoding="utf-8"))["jobs"]["verify"]["steps"]
    assert [step.get("name") for step in steps[2:]] == ["Install", "Export", "Verify", "Keep the reports"]
    assert shlex.split(steps[4]["run"]) == commands((CI / "verify.yml").read_text(encoding="utf-8"))[2]


def test_the_table_that_is_documented_can_be_read(tmp_path):
    table = re.search(r"```toml\n(.*?)```", (CI / "README.md").read_text(encoding="utf-8"), re.S)[1]
    assert set(tomllib.loads(table)["tool"]["vit-deploy"]["verify"]) == {"kl", "int8"}
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    found = read_limits(tmp_path)
    assert found.common == {"kl": 0.05} and found.own == {"int8": {"snr_db": 25.0, "flips": None}}
