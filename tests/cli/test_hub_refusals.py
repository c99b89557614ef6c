"""What a hub, the network and the disk refuse: one message each, with the fix, and nothing half-written."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

import vit_deploy
from tests.cli.conftest import Run
from tests.hub_server import TOKEN, Fault, Hub
from vit_deploy.checkpoints.hub import HUBS
from vit_deploy.errors import HubError

NAME = "hf:org/vit"


@pytest.fixture
def stocked(hub: Hub, timm_files: dict[str, bytes]) -> Hub:
    hub.add("org/vit", timm_files)
    return hub


@pytest.fixture
def refused(stocked: Hub, run: Run, tmp_path: Path) -> Iterator[object]:
    """What a command says that a name is refused with: exit 2, one message, one fix, nothing written."""

    def call(name: str = NAME) -> str:
        target = tmp_path / "out.safetensors"
        said = run("convert", name, "-o", target)
        assert said.code == 2 and said.out == "", said.err
        assert not target.exists()
        lines = [line for line in said.err.splitlines() if line]
        assert len(lines) == 2 and lines[0].startswith("vit-deploy: ") and lines[1].startswith("  fix: "), said.err
        return said.err

    yield call


def test_a_repository_that_is_not_there(refused, stocked) -> None:
    said = refused("hf:org/nothing")
    assert f"there is no repository org/nothing at {stocked.endpoint}, or it is private" in said
    assert "set HF_TOKEN, or log in with: hf auth login" in said


def test_a_model_of_timm_without_its_tag(refused) -> None:
    assert "timm's repositories end in a tag, as timm:vit_tiny_patch16_224.augreg_in21k" in refused("timm:vit_tiny")


def test_a_gated_repository_says_where_to_ask_for_access(refused, stocked, monkeypatch) -> None:
    stocked.repositories["org/vit"].access = "gated"
    said = refused()
    assert "org/vit is gated" in said
    assert f"ask for access at {stocked.endpoint}/org/vit and then set HF_TOKEN" in said
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert f"ask for access at {stocked.endpoint}/org/vit with the account of your token" in refused()


def test_a_token_that_is_not_accepted(refused, stocked, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "mistyped")
    assert f"{stocked.endpoint} does not accept the token that is set" in refused()


def test_a_file_that_is_forbidden(refused, stocked) -> None:
    stocked.faults.append(Fault("/resolve/", method="HEAD", status=403))
    assert f"{stocked.endpoint} does not let you read README.md of org/vit" in refused()


def test_a_revision_that_is_not_there(refused, stocked) -> None:
    said = refused("hf:org/vit@v9")
    assert "org/vit has no revision v9" in said and f"{stocked.endpoint}/org/vit/commits" in said


def test_a_file_that_is_not_there(refused) -> None:
    said = refused("hf:org/vit/modle.safetensors")
    assert "org/vit has no file modle.safetensors at main" in said
    assert "did you mean 'model.safetensors'? give one of hf:org/vit/model.safetensors" in said


def test_several_files_of_weights_are_listed_by_names_to_give(refused, stocked) -> None:
    files = {"vit-b.safetensors": b"b", "vit-l.safetensors": b"l", "vit-b.pth": b"b"}
    stocked.add("org/many", files, revisions={"v1"})
    said = refused("hf:org/many@v1")
    assert "org/many has several files of weights" in said and "hf:org/many/vit-l.safetensors@v1" in said


def test_a_repository_without_weights(refused, stocked) -> None:
    stocked.add("org/card", {"README.md": b"nothing here", "flax_model.msgpack": b"?"})
    said = refused("hf:org/card")
    assert "org/card has no weights that are read here" in said and "it holds README.md, flax_model.msgpack" in said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hf:org", "names no owner and model"),
        ("hf:org/../etc", "names no owner and model"),
        ("hf:org/vit/../x.bin", "lies outside"),
        ("hf:org/vit@", "is no revision"),
        ("hf:org/vit@v1/model.safetensors", "the revision comes last"),
        ("timm:org/vit", "takes one name"),
        ("keras:", "names no owner and model"),
        ("https://huggingface.co/org/vit/tree/main", "give hf:org/vit"),
    ],
)
def test_a_name_of_another_form(refused, stocked, name: str, why: str) -> None:
    assert why in refused(name)
    assert stocked.requests == []


def test_no_network_and_nothing_in_the_cache(refused, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = refused()
    assert "http://127.0.0.1:9 cannot be reached" in said and "check the network, proxies and HF_ENDPOINT" in said


def test_offline_and_not_in_the_cache(refused, stocked, monkeypatch, tmp_path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = refused()
    assert f"{NAME} at main is not in the cache {tmp_path / 'hf-home' / 'hub'}, and HF_HUB_OFFLINE is set" in said
    assert stocked.requests == []


def test_weights_that_are_missing_in_the_cache(refused, stocked, run, monkeypatch) -> None:
    """Another program has fetched the config alone."""
    from huggingface_hub import constants, hf_hub_download

    hf_hub_download("org/vit", "config.json", endpoint=stocked.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "is not in the cache" in refused()


def test_a_hub_that_stays_busy(refused, stocked) -> None:
    stocked.faults.append(Fault("/api/models/", status=429, headers={"Retry-After": "3600"}))
    said = refused()
    assert f"{stocked.endpoint} was asked too often (429)" in said and "try again in 3600 seconds" in said
    assert "more is allowed with a token" in said


def test_a_hub_that_fails(refused, stocked) -> None:
    stocked.faults.append(Fault("/api/models/", status=503, headers={"Retry-After": "0"}))
    assert f"{stocked.endpoint} has a failure: it answers 503 for org/vit" in refused()
    assert len(stocked.asked("/api/models/")) > 2


def test_something_else_that_answers(refused, stocked) -> None:
    stocked.faults.append(Fault("/api/models/", status=200, body=b"<html>Welcome to the hotel</html>"))
    said = refused()
    assert f"{stocked.endpoint} does not answer as a hub does" in said and "check HF_ENDPOINT" in said


@pytest.mark.parametrize("file", ["/storage/", "config.json"])
def test_another_content_than_the_hub_states_is_refused_and_removed(refused, stocked, run, tmp_path, file) -> None:
    stocked.faults.append(Fault(file, times=1, corrupt=True))
    said = refused()
    assert "came with another content than the hub states, and was removed from the cache" in said
    done = run("convert", NAME, "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err


def test_what_was_changed_in_the_cache_is_not_read_offline(refused, stocked, run, tmp_path, monkeypatch) -> None:
    assert run("inspect", NAME).code == 0
    from huggingface_hub import constants, try_to_load_from_cache

    path = try_to_load_from_cache("org/vit", "model.safetensors")
    assert isinstance(path, str)
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "model.safetensors of org/vit came with another content" in refused()


def test_a_digest_is_computed_once(stocked, run, monkeypatch) -> None:
    from vit_deploy.checkpoints.hub.digests import Digest

    computed: list[Path] = []
    of = Digest.of
    monkeypatch.setattr(Digest, "of", lambda self, path: computed.append(path) or of(self, path))
    assert run("inspect", NAME).code == 0
    assert len(computed) == 3  # the card, the config and the weights
    assert run("inspect", NAME).code == 0
    assert len(computed) == 3


@pytest.mark.skipif(os.name == "nt", reason="no limits of file sizes there")
def test_a_disk_that_is_full(refused, stocked, tmp_path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = len(stocked.repositories["org/vit"].files["model.safetensors"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        said = refused()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "there is no space for model.safetensors of org/vit in" in said and "let HF_HOME name a folder" in said


def test_a_cache_that_cannot_be_written(refused, tmp_path) -> None:
    (tmp_path / "hf-home").write_text("a file where the folder has to be")
    assert "org/vit cannot be kept in" in refused()


def test_a_connection_that_never_gives_all(refused, stocked, monkeypatch) -> None:
    import time

    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the client's attempts
    stocked.faults.append(Fault("/storage/", cut=0))
    assert "cannot be reached" in refused()


def test_without_the_client_the_extra_is_named(refused, monkeypatch) -> None:
    entry = HUBS["huggingface"]
    monkeypatch.setattr(type(entry), "absent_modules", lambda self, is_installed=None: self.needs)
    said = refused()
    assert "needs huggingface_hub, which is not installed" in said and 'pip install "vit-deploy[hub]"' in said


def test_the_functions_raise_what_the_commands_say(stocked, tmp_path) -> None:
    with pytest.raises(HubError, match="there is no repository org/nothing") as caught:
        vit_deploy.convert("hf:org/nothing", tmp_path / "out.safetensors")
    assert "HF_TOKEN" in caught.value.fix


def test_the_document_has_the_error(stocked, run) -> None:
    said = run("inspect", "hf:org/nothing", "--json")
    assert said.code == 2
    assert said.document["error"]["type"] == "HubError" and said.document["ok"] is False


def test_a_private_repository_is_read_with_a_token(stocked, run, monkeypatch) -> None:
    stocked.repositories["org/vit"].access, stocked.repositories["org/vit"].granted = "private", {TOKEN}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run("inspect", NAME).code == 0
