"""Model cards: what is in them was recorded or measured, and what was not is said to be missing."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vit_deploy
from tests.cli.conftest import Run, Said
from tests.hub_server import Hub
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import DataError
from vit_deploy.performance.card.page import program

NAME = "hf:org/vit"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what the first test exports."""
    return tmp_path_factory.mktemp("card")


@pytest.fixture
def made(
    hub: Hub, timm_files: dict[str, bytes], run: Run, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Two artifacts of a model that was fetched, and documents of what was measured of them; the folder is current."""
    hub.add("org/vit", timm_files)
    if not any(kept.iterdir()):
        monkeypatch.chdir(kept)
        done = run("export", NAME, "--format", "onnx", "--precision", "fp32,int8", "--no-speed", "-o", "made", "--json")
        assert done.code == 0, done.err
        Path("export.json").write_text(done.out)
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "made"


def measured(run: Run, *arguments: object) -> str:
    """The name of a file with the document of a command."""
    done = run(*arguments, "--json")
    assert done.code == 0, done.err
    path = Path(f"{arguments[0]}.json")
    path.write_text(done.out)
    return str(path)


def parsed(text: str) -> dict[str, Any]:
    """The front matter, read as the hub reads it."""
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_a_card_has_all_that_was_recorded_and_measured(made: Path, run: Run, hub: Hub) -> None:
    from PIL import Image

    from vit_deploy.core.synthetic_images import natural_pixels

    for index, picture in enumerate(natural_pixels(4, 40, 48, 3)):
        place = Path("photos", str(index % 2))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{index}.png")
    documents = [
        measured(run, "verify", "made"),
        measured(run, "bench", "made/onnx-fp32", "--runs", 3, "--runtime", "onnxruntime"),
    ]
    done = run("card", "made", "-o", "README.md", "--results", *documents)
    assert done.code == 0, done.err
    text = Path("README.md").read_text(encoding="utf-8")
    commit = hub.repositories["org/vit"].commit
    assert parsed(text) == {
        "license": "apache-2.0",
        "base_model": ["org/vit"],
        "base_model_relation": "quantized",
        "pipeline_tag": "image-classification",
        "library_name": "onnx",
        "tags": ["vit-deploy", "vision-transformer", "onnx", "fp32", "int8"],
    }
    assert "# vit\n" in text and f"[org/vit]({hub.endpoint}/org/vit/tree/{commit}) at commit `{commit}`" in text
    found = sections(text)
    assert list(found) == ["Files", "Proof", "Latency", "Run it", "Limits"]  # nobody has measured accuracy
    assert "`onnx-fp32/model.onnx` | ONNX | fp32 |" in found["Files"]
    verified = json.loads(Path("verify.json").read_text())["results"]
    for record in verified:
        row = next(line for line in found["Proof"].splitlines() if f"`{Path(record['artifact']).name}`" in line)
        assert f"| {record['metrics']['max_abs']:.1e} |" in row and "onnxruntime (cpu)" in row
    (timed,) = json.loads(Path("bench.json").read_text())["results"]
    host = timed["host"]
    assert f"{host['cores']:g} core" in found["Latency"] and f"Python {host['python']}" in found["Latency"]
    assert found["Latency"].count("| `onnx-") == 1
    assert "Latency was not measured of `onnx-int8`." in found["Limits"]
    assert "Accuracy was not measured of `onnx-fp32`, `onnx-int8`." in found["Limits"]
    assert "licence" not in found["Limits"]


def test_accuracy_is_that_of_the_images_that_were_given(made: Path, run: Run) -> None:
    record = {"artifact": "made/onnx-int8", "runtime": "onnxruntime", "provider": "cpu", "images": 50}
    record |= {"top1": 0.5, "top5": 0.9, "agreement": 0.98, "reference": "made/onnx-fp32"}
    document = {"schema": 1, "command": "evaluate", "ok": True, "results": [record], "skipped": []}
    Path("evaluate.json").write_text(json.dumps(document))
    assert run("card", "made", "-o", "README.md", "--results", "evaluate.json").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert parsed(text)["metrics"] == ["accuracy"]
    row = "| `onnx-int8` | onnxruntime (cpu) | 50 | 50.00 % | 90.00 % | 98.00 % with `onnx-fp32` |"
    assert row in sections(text)["Accuracy"]


def test_without_results_nothing_is_claimed(made: Path, run: Run) -> None:
    assert run("card", "made/onnx-fp32", "-o", "README.md").code == 0
    found = sections(Path("README.md").read_text(encoding="utf-8"))
    assert list(found) == ["Files", "Proof", "Run it", "Limits"]
    assert "No comparison with the reference is among the results" in found["Proof"]
    for what in ("Accuracy", "Latency", "Parity"):
        assert f"{what} was not measured of `onnx-fp32`." in found["Limits"]


def test_the_program_of_a_card_runs(made: Path, run: Run) -> None:
    from PIL import Image

    assert run("card", "made", "-o", "README.md").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    Image.new("RGB", (50, 40), (200, 30, 30)).save("photo.png")
    short, plain = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(short.splitlines()) <= 10 and "vit_deploy" not in plain.replace("vit_deploy.labels", "")
    assert 'pip install "vit-deploy[onnx]"' in text
    classes = []
    for text in (short, plain):
        words = [sys.executable, "-c", text, str(Path("photo.png").resolve())]
        done = subprocess.run(words, cwd=made, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        classes.append([line.partition(" ")[2] for line in done.stdout.splitlines()])
    assert classes[0] == classes[1] and len(classes[0]) == 5


@pytest.mark.parametrize("format", ["onnx", "tflite", "savedmodel"])
@pytest.mark.parametrize("head", [True, False])
def test_the_program_of_a_card_has_ten_lines_for_every_format(
    format: str, head: bool, bundles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from PIL import Image

    artifact = read_artifact(bundles[format])
    monkeypatch.chdir(artifact.directory.parent)
    beside = dataclasses.replace(artifact, directory=Path(artifact.directory.name))
    if not head:
        beside = dataclasses.replace(beside, config=beside.config.replace(include_top=False))
    lines = program(beside)
    assert len(lines) <= 10
    Image.new("RGB", (50, 40), (200, 30, 30)).save(tmp_path / "photo.png")
    monkeypatch.setattr(sys, "argv", ["program", str(tmp_path / "photo.png")])
    exec(compile("\n".join(lines), "program", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == (5 if head else 1)


def test_the_program_asks_for_what_a_file_was_made_for(bundles: Any) -> None:
    artifact = read_artifact(bundles["onnx"])
    made_for = dataclasses.replace(artifact, options={**artifact.options, "for": "cuda"})
    assert sum("provider='cuda'" in line for line in program(made_for)) == 1
    assert len(program(made_for)) <= 10


def test_what_was_measured_of_other_files_is_left_out_and_said(made: Path, run: Run) -> None:
    document = json.loads(Path("export.json").read_text())
    for record in document["results"]:
        record["bytes"] += 1
    Path("export.json").write_text(json.dumps(document))
    record = {"artifact": "elsewhere/onnx-fp32", "images": 5, "top1": 1.0}
    other = {"schema": 1, "command": "evaluate", "ok": True, "results": [record], "skipped": []}
    Path("other.json").write_text(json.dumps(other))
    done = run("card", "made", "-o", "README.md", "--results", "export.json", "other.json")
    assert done.code == 0
    assert "export.json measured another file than onnx-int8 has now; it is left out" in done.err
    assert "other.json says something of elsewhere/onnx-fp32, which is not in the card" in done.err
    assert "Accuracy" not in sections(Path("README.md").read_text(encoding="utf-8"))


def test_a_model_without_a_licence_says_so(keras_file: Path, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("export", keras_file, "--format", "onnx", "-o", "made", "--no-speed").code == 0
    assert run("card", "made", "-o", "README.md").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert "license" not in parsed(text) and "base_model" not in parsed(text)
    assert "The licence of the weights is not recorded" in sections(text)["Limits"]


def test_a_licence_that_the_hub_does_not_know_is_another_with_its_name(
    hub: Hub, timm_files: dict[str, bytes], tmp_path: Path
) -> None:
    link = "https://example.org/licence"
    card = f"---\nlicense: other\nlicense_name: house: rules\nlicense_link: {link}\n---\n"
    hub.add("org/vit", {**timm_files, "README.md": card.replace("house: rules", "'house: rules'").encode()})
    made = vit_deploy.export(NAME, tmp_path / "made", formats="onnx")
    text = vit_deploy.card(made, tmp_path / "README.md").result.text
    said = {name: value for name, value in parsed(text).items() if name.startswith("license")}
    assert said == {"license": "other", "license_name": "house: rules", "license_link": link}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["made"], "give --output README.md or --push OWNER/NAME"),
        (["made", "-o", "card.html"], "expected a name that ends in .md"),
        (["made", "-o", "README.md", "--results", "nothing.json"], "there is no file nothing.json"),
        (["made", "-o", "README.md", "--results", "made/onnx-fp32/artifact.json"], "is no document of vit-deploy"),
        (["nothing", "-o", "README.md"], "nothing does not exist"),
        (["export.json", "-o", "README.md"], "no artifact is given"),
        (["made", "copy/onnx-fp32", "-o", "README.md"], "several artifacts are called onnx-fp32"),
    ],
)
def test_what_no_card_is_made_of(made: Path, run: Run, arguments: list[str], why: str) -> None:
    shutil.copytree(made, "copy")
    done: Said = run("card", *arguments)
    assert done.code == 2 and why in done.err, done.err
    assert not Path("README.md").exists()


def test_a_card_that_is_there_is_replaced_by_force_alone(made: Path, run: Run) -> None:
    Path("README.md").write_text("mine")
    assert run("card", "made", "-o", "README.md").code == 2
    assert Path("README.md").read_text() == "mine"
    assert run("card", "made", "-o", "README.md", "--force").code == 0


def test_the_function_gives_what_the_command_writes(made: Path, run: Run) -> None:
    command = run("card", "made", "-o", "README.md", "--results", "export.json", "--json")
    written = vit_deploy.card("made", "other.md", results="export.json")
    assert written.result.text == Path("README.md").read_text(encoding="utf-8") == Path("other.md").read_text("utf-8")
    assert command.document["results"][0]["text"] == written.result.text
    with pytest.raises(DataError, match="there is no file"):
        vit_deploy.card("made", "third.md", results="nothing.json")


def test_nothing_in_a_name_or_a_result_becomes_markup(made: Path, run: Run) -> None:
    record = {"artifact": "made/onnx-fp32", "runtime": "<script>|[x](http://evil)", "images": 5, "top1": 1.0}
    other = {"schema": 1, "command": "evaluate", "ok": True, "results": [record], "skipped": []}
    Path("other.json").write_text(json.dumps(other))
    assert run("card", "made", "-o", "README.md", "--results", "other.json", "--title", "# <b>x</b>").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert "<script>" not in text and "<b>" not in text and "[x](http" not in text


def test_an_address_of_another_machine_is_not_published(made: Path, run: Run) -> None:
    record = {"artifact": "made/onnx-fp32", "runtime": "onnxruntime", "provider": "cpu", "images": 5, "top1": 1.0}
    document = {"schema": 1, "command": "evaluate", "ok": True, "skipped": []}
    Path("there.json").write_text(json.dumps({**document, "results": [{**record, "on": "ssh://me@board.local"}]}))
    assert run("card", "made", "-o", "README.md", "--results", "there.json").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert "onnxruntime (cpu) on another machine" in text and "board" not in text
