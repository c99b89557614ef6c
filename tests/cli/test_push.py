"""Artifacts and their card on their way to a hub: what goes is shown, nothing else goes, and refusals say the fix."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

import vit_deploy
from tests.cli.conftest import Run
from tests.hub_server import TOKEN, Fault, Hub
from vit_deploy.checkpoints.hub.publishing import Upload
from vit_deploy.errors import HubError

REPOSITORY = "me/vit-onnx"


@pytest.fixture
def made(hub: Hub, bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact beside which somebody keeps a file of his own, with a token to write."""
    folder = tmp_path / "made"
    shutil.copytree(bundles["onnx"], folder / "onnx-fp32")
    (folder / "onnx-fp32" / "notes.txt").write_text("mine alone")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return folder


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_card_and_artifacts_go_in_one_commit(made: Path, hub: Hub, run: Run) -> None:
    done = run("card", "made", "--push", REPOSITORY, "--yes", "-o", "README.md", "--json")
    assert done.code == 0, done.err
    there = hub.repositories[REPOSITORY]
    assert sorted(there.files) == [
        "README.md",
        "onnx-fp32/artifact.json",
        "onnx-fp32/golden.npz",
        "onnx-fp32/model.onnx",
    ]
    for name in ("artifact.json", "golden.npz", "model.onnx"):
        assert there.files[f"onnx-fp32/{name}"] == (made / "onnx-fp32" / name).read_bytes()
    assert there.files["README.md"] == Path("README.md").read_bytes()
    assert f"`hf download {REPOSITORY} --local-dir .`" in Path("README.md").read_text(encoding="utf-8")
    assert len(hub.asked("/commit/", "POST")) == 1 and there.access == "public"
    pushed = done.document["results"][0]["pushed"]
    assert pushed["commit"] == f"{hub.endpoint}/{REPOSITORY}/commit/{there.commit}" and pushed["created"] is True
    assert {file["name"] for file in pushed["files"]} == set(there.files)


def test_what_was_pushed_is_proven_where_it_is_fetched(made: Path, hub: Hub, run: Run) -> None:
    assert run("card", "made", "--push", REPOSITORY, "--yes").code == 0
    for name, content in hub.repositories[REPOSITORY].files.items():
        target = Path("fetched", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert run("verify", "fetched/onnx-fp32").code == 0


def test_what_goes_is_shown_before_anybody_is_asked(
    made: Path, hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    done = run("card", "made", "--push", REPOSITORY)
    assert done.code == 1 and "nothing was uploaded" in done.err
    shown, asked, _ = done.err.partition("Upload these files?")
    assert asked and f"to {hub.endpoint}/{REPOSITORY}, a repository that is made, for everyone to read:" in shown
    for name in ("README.md", "onnx-fp32/model.onnx", "onnx-fp32/artifact.json", "onnx-fp32/golden.npz"):
        assert f"  {name}  " in shown
    assert "notes.txt" not in shown
    assert REPOSITORY not in hub.repositories and [request for request in hub.requests if request.method != "GET"] == []
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run("card", "made", "--push", REPOSITORY).code == 0
    assert REPOSITORY in hub.repositories


def test_where_nobody_can_be_asked_it_takes_a_yes(made: Path, hub: Hub, run: Run, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    done = run("card", "made", "--push", REPOSITORY, "-o", "README.md")
    assert done.code == 2 and "add --yes" in done.err
    assert hub.requests == [] and not Path("README.md").exists()


def test_a_repository_that_is_there_keeps_its_other_files(made: Path, hub: Hub, run: Run) -> None:
    hub.add(REPOSITORY, {"README.md": b"old", "LICENSE": b"text"})
    done = run("card", "made", "--push", REPOSITORY, "--yes")
    assert done.code == 0, done.err
    assert "a repository that is there" in done.err
    assert "README.md" in next(line for line in done.err.splitlines() if line.endswith("replaces what is there"))
    files = hub.repositories[REPOSITORY].files
    assert files["LICENSE"] == b"text" and files["README.md"] != b"old"
    assert hub.asked("/api/repos/create", "POST") == []


def test_a_repository_is_made_private_on_request(made: Path, hub: Hub, run: Run) -> None:
    assert run("card", "made", "--push", REPOSITORY, "--yes", "--private").code == 0
    assert hub.repositories[REPOSITORY].access == "private"


@pytest.mark.parametrize(
    ("token", "faults", "why"),
    [
        ("", [], "does not let you write to me/vit-onnx"),
        ("hf_other", [], "does not let you write to me/vit-onnx"),
        (TOKEN, [Fault("/commit/", method="POST", status=403)], "does not let you write to me/vit-onnx"),
        (TOKEN, [Fault("/upload/", method="PUT", status=400)], "it answers 400"),
    ],
)
def test_a_refusal_says_the_fix(
    made: Path, hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch, token: str, faults: list[Fault], why: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.faults += [Fault(**vars(fault)) for fault in faults]
    done = run("card", "made", "--push", REPOSITORY, "--yes", "-o", "README.md")
    assert done.code == 2 and why in done.err and "fix: " in done.err, done.err
    assert not Path("README.md").exists() and "Traceback" not in done.err


def test_no_network_is_said(made: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run("card", "made", "--push", REPOSITORY, "--yes")
    assert done.code == 2 and "http://127.0.0.1:9 cannot be reached" in done.err


@pytest.mark.parametrize("name", ["vit-onnx", "me/vit/onnx", "me/vit@v1", "../vit"])
def test_what_is_no_repository(made: Path, hub: Hub, run: Run, name: str) -> None:
    done = run("card", "made", "--push", name, "--yes")
    assert done.code == 2 and hub.requests == []


def test_an_artifact_that_failed_its_proof_does_not_go(made: Path, hub: Hub, run: Run) -> None:
    shutil.move(made / "onnx-fp32", made / "onnx-fp32.failed")
    done = run("card", "made/onnx-fp32.failed", "--push", REPOSITORY, "--yes")
    assert done.code == 2 and "onnx-fp32.failed did not pass a proof" in done.err
    assert hub.requests == []


def test_an_artifact_that_was_changed_does_not_go(made: Path, hub: Hub, run: Run) -> None:
    with (made / "onnx-fp32" / "model.onnx").open("ab") as file:
        file.write(b"more")
    done = run("card", "made", "--push", REPOSITORY, "--yes")
    assert done.code == 2 and "was changed" in done.err
    assert hub.requests == []


def test_the_function_asks_whom_it_is_told_to(made: Path, hub: Hub) -> None:
    asked: list[Upload] = []

    def no(upload: Upload) -> bool:
        asked.append(upload)
        return False

    left = vit_deploy.card("made", push=REPOSITORY, confirm=no)
    assert not left.ok and REPOSITORY not in hub.repositories
    assert sorted(asked[0].files)[0] == "README.md" and asked[0].exists is False
    done = vit_deploy.card("made", push=f"hf:{REPOSITORY}")
    assert done.ok and done.result.commit.startswith(hub.endpoint)
    json.dumps(done.to_dict())
    with pytest.raises(HubError, match="is no repository"):
        vit_deploy.card("made", push="nowhere/at/all")
