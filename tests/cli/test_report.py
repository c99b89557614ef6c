from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def saved(bundles, tmp_path_factory):
    """What `bench --save` wrote, and `verify --json` printed, of the tiny model."""
    from vit_deploy.core.documents import document
    from vit_deploy.performance.bench import Case, Plan, bench
    from vit_deploy.performance.latency import to_json
    from vit_deploy.verification.records import verification
    from vit_deploy.verification.targets import open_artifact
    from vit_deploy.verification.verifying import verify

    folder = tmp_path_factory.mktemp("saved")
    cases = [Case(bundles["onnx"], "onnxruntime", threads=1), Case(bundles["tflite"], "litert", threads=1)]
    results = bench(cases, Plan(seconds=None, runs=4, rounds=2, warmup=1))
    documents = {
        "bench": [to_json(result, results[0]) for result in results],
        "verify": [verification(verify(open_artifact(bundles["onnx"])))],
    }
    for command, records in documents.items():
        (folder / f"{command}.json").write_text(json.dumps(document(command, records, ok=True)))
    return folder


def test_one_command_writes_a_page_markdown_and_csv(run, saved, tmp_path):
    pytest.importorskip("vl_convert")
    outputs = [tmp_path / name for name in ("r.html", "r.md", "r.csv")]
    options = [word for path in outputs for word in ("-o", path)]
    result = run("report", saved / "bench.json", saved / "verify.json", *options, "--title", "Tiny & fast", "--json")
    assert result.code == 0, result.err
    assert [record["path"] for record in result.document["results"]] == [str(path) for path in outputs]
    page, markdown, table = (path.read_text(encoding="utf-8") for path in outputs)
    assert page.startswith("<!doctype html>") and "<h1>Tiny &amp; fast</h1>" in page
    assert markdown.startswith("# Tiny \\& fast") and "| same |" in markdown
    assert len(table.splitlines()) == 3


def test_an_output_of_another_kind_is_refused_before_anything_is_read(run, tmp_path):
    result = run("report", tmp_path / "none.json", "-o", tmp_path / "r.pdf")
    assert result.code == 2 and "'r.pdf'; expected a name that ends in .html, .md, .csv" in result.err


def test_what_is_there_is_kept_unless_it_may_be_replaced(run, saved, tmp_path):
    target = tmp_path / "r.csv"
    target.write_text("mine")
    result = run("report", saved / "bench.json", "-o", target)
    assert result.code == 2 and "add --force" in result.err and target.read_text() == "mine"
    assert run("report", saved / "bench.json", "-o", target, "--force").code == 0
    assert target.read_text() != "mine"


def test_wrong_input_is_one_error_and_leaves_nothing_behind(run, saved, tmp_path):
    for given, words in [
        (tmp_path / "none.json", "cannot read"),
        (saved, "Is a directory"),
        (saved / "verify.json", "nothing was timed in"),
    ]:
        result = run("report", given, "-o", tmp_path / "out" / "r.md", "--json")
        assert result.code == 2 and words in result.document["error"]["message"]
        assert not (tmp_path / "out").exists()
    result = run("report", "-o", tmp_path / "r.md")
    assert result.code == 2 and "Missing argument" in result.err
