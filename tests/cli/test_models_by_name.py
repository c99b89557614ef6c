"""Models of a hub by name, through every command that takes a checkpoint, and through the functions."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vit_deploy
from tests.cli.conftest import ROOT, Run
from tests.hub_server import TOKEN, Fault, Hub
from vit_deploy import checkpoints
from vit_deploy.core.origin import origin_in

GOLDEN = ROOT / "tests" / "peers" / "golden"
PLAIN = "vit_plain.golden"


@pytest.fixture
def timm_hub(hub: Hub, timm_files: dict[str, bytes]) -> Hub:
    """With one model of timm's, beside which lies what nobody needs."""
    more = {"pytorch_model.bin": b"the same weights again", ".gitattributes": b"", "events.out.tfevents": b"log"}
    hub.add(f"timm/{PLAIN}", {**timm_files, **more})
    return hub


def fetched(hub: Hub) -> list[str]:
    """Names of the files that were asked for; of large ones the client asks too, and finds them in its cache."""
    return list(dict.fromkeys(question.path.rpartition("/")[2] for question in hub.asked("/resolve/", "HEAD")))


def test_a_model_of_timm_is_read_as_its_folder_is(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    done = run("convert", f"timm:{PLAIN}", "-o", tmp_path / "by-name.safetensors")
    assert done.code == 0, done.err
    local = checkpoints.load(GOLDEN / "timm" / "plain")
    assert checkpoints.load(tmp_path / "by-name.safetensors").digest() == local.digest()


def test_only_what_is_needed_is_fetched_and_once(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    assert run("convert", f"timm:{PLAIN}", "-o", tmp_path / "a.safetensors").code == 0
    assert sorted(fetched(timm_hub)) == ["README.md", "config.json", "model.safetensors"]
    assert len(timm_hub.asked("/storage/")) == 1
    del timm_hub.requests[:]
    assert run("convert", f"hf:timm/{PLAIN}", "-o", tmp_path / "b.safetensors").code == 0
    assert [request.path for request in timm_hub.requests] == [f"/api/models/timm/{PLAIN}/revision/main"]


def test_files_lie_in_the_hubs_own_cache(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    assert run("inspect", f"timm:{PLAIN}").code == 0
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(f"timm/{PLAIN}", "model.safetensors")
    commit = timm_hub.repositories[f"timm/{PLAIN}"].commit
    assert found == str(tmp_path / "hf-home" / "hub" / f"models--timm--{PLAIN}/snapshots/{commit}/model.safetensors")


@pytest.mark.parametrize(
    "folder",
    [pytest.param("vit", id="shards"), "dinov2", "siglip-vision", "deit-teacher"],
)
def test_folders_of_transformers_are_read_by_name(hub: Hub, tmp_path: Path, run: Run, folder: str) -> None:
    hub.add("google/a-vit", GOLDEN / "huggingface" / folder)
    done = run("convert", "hf:google/a-vit", "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    expected = checkpoints.load(GOLDEN / "huggingface" / folder)
    assert checkpoints.load(tmp_path / "out.safetensors").digest() == expected.digest()
    assert "expected.npz" not in fetched(hub)


def test_a_preset_of_keras_hub_is_read_with_its_head(hub: Hub, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    hub.add("keras/vit_golden", GOLDEN / "keras_hub" / "vit_classifier_preset")
    done = run("convert", "keras:vit_golden", "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    expected = checkpoints.load(GOLDEN / "keras_hub" / "vit_classifier_preset")
    assert checkpoints.load(tmp_path / "out.safetensors").digest() == expected.digest()


def test_a_file_of_a_repository_is_taken_with_the_config_beside_it(
    hub: Hub, timm_files: dict[str, bytes], run: Run, tmp_path: Path
) -> None:
    moved = {f"last/{name}": content for name, content in timm_files.items()}
    hub.add("org/runs", {"best.safetensors": b"not this one", "other.safetensors": b"nor this", **moved})
    done = run("convert", "hf:org/runs/last/model.safetensors", "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    assert sorted(fetched(hub)) == ["config.json", "model.safetensors"]


def test_a_revision_is_recorded_with_its_commit(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    repository = timm_hub.repositories[f"timm/{PLAIN}"]
    repository.revisions |= {"v1.0", "refs/pr/3"}
    for revision in ("v1.0", "refs/pr/3", repository.commit):
        target = tmp_path / f"{revision.replace('/', '-')}.safetensors"
        done = run("convert", f"hf:timm/{PLAIN}@{revision}", "-o", target)
        assert done.code == 0, done.err
        origin = origin_in(checkpoints.load(target).provenance)
        assert origin is not None
        assert (origin.revision, origin.commit) == (revision, repository.commit)


def test_a_large_file_comes_from_another_host_without_the_token(
    timm_hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert run("inspect", f"timm:{PLAIN}").code == 0
    (large,) = timm_hub.asked("/storage/")
    assert large.host == "storage" and "authorization" not in large.headers
    assert all(
        question.headers["authorization"] == f"Bearer {TOKEN}" for question in timm_hub.asked("/resolve/", "HEAD")
    )


def test_a_connection_that_is_cut_is_taken_up_where_it_was(
    timm_hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)  # in which the client keeps what has come
    timm_hub.faults.append(Fault("/storage/", times=1, cut=1000))
    done = run("convert", f"timm:{PLAIN}", "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    first, second = timm_hub.asked("/storage/")
    assert "range" not in first.headers and second.headers["range"] == "bytes=1000-"


def interrupt_at(percent: int) -> Any:
    """Told of progress, it does what Ctrl-C would when so much of the weights has come."""

    def told(text: str) -> None:
        if text == f"fetching model.safetensors of timm/{PLAIN}: {percent}%":
            raise KeyboardInterrupt

    return told


def parts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "hf-home").rglob("*.incomplete"))


def test_a_command_goes_on_where_the_one_before_was_broken_off(
    timm_hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 500)
    size = len(timm_hub.repositories[f"timm/{PLAIN}"].files["model.safetensors"])
    percent = 100 * (size // 1000 * 500) // size  # a whole number of chunks, about half
    with pytest.raises(KeyboardInterrupt):
        vit_deploy.convert(f"timm:{PLAIN}", tmp_path / "a.safetensors", progress=interrupt_at(percent))
    (part,) = parts(tmp_path)
    kept = part.stat().st_size
    assert 0 < kept < size
    done = run("convert", f"timm:{PLAIN}", "-o", tmp_path / "a.safetensors")
    assert done.code == 0, done.err
    assert timm_hub.asked("/storage/")[-1].headers["range"] == f"bytes={kept}-"
    assert parts(tmp_path) == []
    assert run("compare", tmp_path / "a.safetensors", GOLDEN / "timm" / "plain").code == 0


def test_a_part_that_was_damaged_is_fetched_again(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    digest = hashlib.sha256(timm_hub.repositories[f"timm/{PLAIN}"].files["model.safetensors"]).hexdigest()
    blobs = tmp_path / "hf-home" / "hub" / f"models--timm--{PLAIN}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.vit-deploy.incomplete").write_bytes(bytes(1000))
    done = run("convert", f"timm:{PLAIN}", "-o", tmp_path / "a.safetensors")
    assert done.code == 0, done.err
    assert ["range" in question.headers for question in timm_hub.asked("/storage/")] == [True, False]
    assert parts(tmp_path) == [] and run("compare", tmp_path / "a.safetensors", GOLDEN / "timm" / "plain").code == 0


def test_a_hub_that_offers_other_storage_is_asked_by_plain_http(
    timm_hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    timm_hub.xet = True
    done = run("inspect", f"timm:{PLAIN}")
    assert done.code == 0, done.err
    assert len(timm_hub.asked("/storage/")) == 1 and timm_hub.asked("xet-read-token") == []


def test_a_hub_that_is_busy_is_asked_again_when_it_says(timm_hub: Hub, run: Run) -> None:
    busy = {"Retry-After": "0"}
    timm_hub.faults += [
        Fault("/api/models/", times=2, status=429, headers=busy),
        Fault("/storage/", 1, status=429, headers=busy),
    ]
    timm_hub.faults.append(Fault("/api/models/", times=1, status=503, headers=busy))
    done = run("inspect", f"timm:{PLAIN}")
    assert done.code == 0, done.err
    assert len(timm_hub.asked("/api/models/")) == 4


def test_progress_is_ours_and_quiet_on_request(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    told: list[str] = []
    vit_deploy.convert(f"timm:{PLAIN}", tmp_path / "a.safetensors", progress=told.append)
    assert f"looking for timm/{PLAIN}" in told
    assert f"fetching model.safetensors of timm/{PLAIN}: 100%" in told
    timm_hub.add("org/again", {**timm_hub.repositories[f"timm/{PLAIN}"].files, "README.md": b"other"})
    done = run("convert", "hf:org/again", "-o", tmp_path / "b.safetensors", "-q")
    assert (done.code, done.err) == (0, "")


def test_the_environment_means_what_it_means_to_the_hubs_users(
    timm_hub: Hub, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In processes of their own: the client reads it when it is imported."""
    timm_hub.repositories[f"timm/{PLAIN}"].access = "private"
    timm_hub.repositories[f"timm/{PLAIN}"].granted = {TOKEN}
    home = tmp_path / "another home"
    refused = command("inspect", f"timm:{PLAIN}", HF_HOME=home)
    assert refused.code == 2 and "or it is private" in refused.err
    done = command("inspect", f"timm:{PLAIN}", HF_HOME=home, HF_TOKEN=TOKEN)
    assert done.code == 0, done.err
    assert (home / "hub" / f"models--timm--{PLAIN}").is_dir() and not (tmp_path / "hf-home").exists()
    del timm_hub.requests[:]
    offline = command("inspect", f"timm:{PLAIN}", "--json", HF_HOME=home, HF_HUB_OFFLINE="1")
    assert offline.code == 0, offline.err
    assert timm_hub.requests == []
    assert offline.document["results"][0]["weights_digest"] == checkpoints.load(GOLDEN / "timm" / "plain").digest()


@pytest.mark.parametrize("name", [f"timm:{PLAIN}", "hf:google/a-vit"])
def test_what_was_fetched_is_read_without_a_network(
    timm_hub: Hub, run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm_hub.add("google/a-vit", GOLDEN / "huggingface" / "vit")  # in shards
    online = run("inspect", name, "--json").document["results"][0]
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setenv("HF_ENDPOINT", nowhere)
    done = run("inspect", name, "--json")
    assert done.code == 0, done.err
    assert f"taken from the cache, for {nowhere} cannot be reached" in done.err
    offline = done.document["results"][0]
    assert (offline["weights_digest"], offline["bytes"]) == (online["weights_digest"], online["bytes"])


def test_no_code_of_a_repository_is_run_and_that_is_said(
    hub: Hub, timm_files: dict[str, bytes], run: Run, tmp_path: Path
) -> None:
    config = json.loads(timm_files["config.json"]) | {"auto_map": {"AutoModel": "modeling_evil.Evil"}}
    trap = f"open({str(tmp_path / 'trapped')!r}, 'w')".encode()
    hub.add("org/evil", {**timm_files, "config.json": json.dumps(config).encode(), "modeling_evil.py": trap})
    done = run("convert", "hf:org/evil", "-o", tmp_path / "out.safetensors")
    assert done.code == 0, done.err
    assert "not run, as no code of a model is: auto_map in config.json, modeling_evil.py" in done.err
    assert "modeling_evil.py" not in fetched(hub) and not (tmp_path / "trapped").exists()


def test_a_folder_that_has_the_name_is_taken_before_a_hub(
    hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("timm:mine").symlink_to(GOLDEN / "timm" / "plain")
    assert run("convert", "timm:mine", "-o", "out.safetensors").code == 0
    assert hub.requests == []


def test_every_command_takes_a_name(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    name = f"timm:{PLAIN}"
    assert run("resize", name, "--image-size", "32x48", "-o", tmp_path / "resized.safetensors").code == 0
    compared = run("compare", name, GOLDEN / "timm" / "plain")
    assert compared.code == 0, compared.out + compared.err
    photos = tmp_path / "photo.npy"
    from PIL import Image

    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photos.with_suffix(".png"))
    predicted = run("predict", name, photos.with_suffix(".png"), "--json")
    assert predicted.code == 0, predicted.err
    inspected = run("inspect", name, "--json").document["results"][0]
    assert inspected["path"] == name and inspected["bytes"] == (GOLDEN / "timm/plain/model.safetensors").stat().st_size


def test_an_export_is_named_after_the_model_and_proven_against_its_name(
    timm_hub: Hub, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run("export", f"timm:{PLAIN}", "--format", "onnx", "--json")
    assert made.code == 0, made.err
    config = checkpoints.load(GOLDEN / "timm" / "plain").config
    folder = Path("artifacts") / f"{PLAIN}-{'x'.join(map(str, config.image_size))}" / "onnx-fp32"
    assert made.document["results"][0]["path"] == str(folder)
    assert run("verify", folder, "--against", f"timm:{PLAIN}").code == 0
    rng = np.random.default_rng(3)
    shape = (4, *config.image_size, config.channels)
    np.savez("data.npz", images=rng.integers(0, 256, shape, np.uint8), labels=np.arange(4) % config.num_classes)
    judged = run("evaluate", folder, "--data", "data.npz", "--against", f"timm:{PLAIN}", "--json")
    assert judged.code == 0, judged.err
    (found,) = judged.document["results"]
    assert found["against"]["model"] == f"timm:{PLAIN}" and found["against"]["top1_agreement"] == 1


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs tfmot")
def test_a_model_is_compressed_by_its_name(timm_hub: Hub, run: Run, tmp_path: Path) -> None:
    config = checkpoints.load(GOLDEN / "timm" / "plain").config
    rng = np.random.default_rng(4)
    shape = (16, *config.image_size, config.channels)
    np.savez(tmp_path / "data.npz", images=rng.integers(0, 256, shape, np.uint8), labels=np.arange(16) % 3)
    words = ["compress", f"timm:{PLAIN}", "--method", "prune", "--data", tmp_path / "data.npz", "--epochs", 1]
    refused = run(*words, "-o", tmp_path / "none.safetensors", "--require-licence", "mit")
    assert refused.code == 1 and "apache-2.0" in refused.err
    done = run(*words, "-o", tmp_path / "pruned.safetensors", "--no-speed", "--json")
    assert done.code == 0, done.err
    origin = origin_in(checkpoints.load(tmp_path / "pruned.safetensors").provenance)
    assert origin is not None and (origin.repository, origin.licence) == (f"timm/{PLAIN}", "apache-2.0")


def test_the_functions_take_a_name_as_the_commands_do(timm_hub: Hub, tmp_path: Path) -> None:
    name = f"timm:{PLAIN}"
    saved = vit_deploy.convert(name, tmp_path / "out.safetensors").result
    origin = origin_in(saved.checkpoint.provenance)
    assert origin is not None and origin.repository == f"timm/{PLAIN}"
    assert vit_deploy.inspect(name).result.artifact is not None
    assert vit_deploy.compare(name, tmp_path / "out.safetensors").ok
    logging.disable(logging.NOTSET)


def test_a_keras_model_is_loaded_by_name(timm_hub: Hub) -> None:
    pytest.importorskip("keras")
    model: Any = vit_deploy.load(f"timm:{PLAIN}")
    assert model.config == checkpoints.load(GOLDEN / "timm" / "plain").config


def test_no_layers_that_a_repository_describes_are_made(
    hub: Hub, keras_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras = pytest.importorskip("keras")
    hub.add("org/keras", {"model.keras": keras_file.read_bytes()})
    monkeypatch.setattr(keras.saving, "load_model", lambda *args, **options: pytest.fail("Keras reads the file"))
    for name in ("hf:org/keras", "hf:org/keras/model.keras"):
        model: Any = vit_deploy.load(name)
        assert model.config == checkpoints.load(keras_file).config
