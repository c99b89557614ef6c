"""The one command of the benchmarks: its parts, its pages, and that what they claim comes from stored results."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import markers, pages, quickstart, run_part
from benchmarks.job import Job
from benchmarks.parts import PARTS
from benchmarks.records import RESULTS
from benchmarks.targets import Target, target_table

ROOT = Path(__file__).parents[2]
ALL = [pytest.param(part, id=name) for name, part in PARTS.items()]


@pytest.fixture
def asked(monkeypatch):
    """The parts that were run, and with what; nothing is measured."""
    jobs = {}

    def run(arguments, **_):
        *_, part, job = arguments
        jobs[part] = Job.from_json(job)
        return subprocess.CompletedProcess(arguments, returncode=9 if part == "loading" else 0)

    monkeypatch.setattr(command.subprocess, "run", run)
    monkeypatch.setattr(command.Part, "missing", lambda part: [])
    return jobs


@pytest.fixture
def published(monkeypatch):
    """How often the pages were rewritten; they are left as they are."""
    times = []
    monkeypatch.setattr(pages, "rewrite", times.append)
    return times


def test_the_one_command_runs_every_part_and_rewrites_the_pages(asked, published):
    command.main(["--trained", "models", "--size", "tiny"])
    assert list(asked) == list(PARTS)
    assert {job.sizes for job in asked.values()} == {("tiny",)}
    assert {job.trained for job in asked.values()} == {Path("models").absolute()}
    assert published == [RESULTS]


def test_a_part_that_fails_takes_nothing_from_the_others(asked, published, capsys):
    assert command.main(["--only", "export,loading,accuracy"]) == 1
    assert list(asked) == ["export", "loading", "accuracy"] and published == [RESULTS]
    said = capsys.readouterr().err
    assert "loading: failed after 0.0 minutes (exit 9)" in said and "accuracy: done in" in said


def test_what_is_not_installed_is_skipped_with_a_line_that_says_so(asked, published, monkeypatch, capsys):
    monkeypatch.setattr(command.Part, "missing", lambda part: ["tf_keras"] if part.name == "compression" else [])
    assert command.main(["--only", "compression,quickstart"]) == 0
    assert list(asked) == ["quickstart"]
    assert "compression: skipped, tf_keras not installed (extra: compress)" in capsys.readouterr().err


def test_modules_that_are_not_there_are_found_out():
    part = dataclasses.replace(PARTS["export"], needs=("json", "no_such_engine"))
    assert part.missing() == ["no_such_engine"]


@pytest.mark.parametrize("option", [["--quick"], ["--results", "elsewhere"]])
def test_a_miniature_and_results_elsewhere_never_touch_what_is_published(
    option, asked, published, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command.main([*option, "--only", "export"])
    assert published == [] and asked["export"].results != RESULTS
    assert asked["export"].quick is (option == ["--quick"])


def test_tables_measure_nothing(asked, published):
    assert command.main(["--tables"]) == 0
    assert asked == {} and published == [RESULTS]


def test_an_unknown_part_is_named(asked, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--only", "export,speed"])
    assert stopped.value.code == 2
    assert "no part speed; there are export, precisions" in capsys.readouterr().err


def test_a_job_travels_to_another_process_as_it_is():
    switched = Job(Path("a"), Path("b"), Path("c.zip"), ("tiny", "base"), quick=True, latency_only=True)
    for job in (Job(Path("a"), Path("b")), switched):
        assert Job.from_json(job.to_json()) == job
    assert [size.name for size in job.chosen("base")] == ["quick"]
    assert [size.name for size in Job(Path("a"), Path("b")).chosen("base")] == ["base"]


def test_each_result_is_stored_before_the_next_one_can_fail(tmp_path, monkeypatch):
    def measure(job):
        yield "first", {"value": 1}
        raise RuntimeError("the second broke")

    monkeypatch.setitem(sys.modules, "fails_later", types.SimpleNamespace(measure=measure))
    monkeypatch.setitem(PARTS, "export", dataclasses.replace(PARTS["export"], measuring="fails_later"))
    with pytest.raises(RuntimeError):
        run_part.main(["export", Job(tmp_path, tmp_path).to_json()])
    stored = json.loads((tmp_path / "export" / "first.json").read_text())
    assert stored["value"] == 1 and stored["took_s"] >= 0
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["first.json"]


@pytest.mark.parametrize("part", ALL)
def test_every_part_measures_judges_and_has_published_results(part):
    assert callable(importlib.import_module(part.measuring).measure)
    found = part.stored(RESULTS)
    assert found and part.render(found)
    targets = part.targets(found)
    assert targets and any(target.met is not None for target in targets)
    assert all(target.met is None for target in part.targets({}))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.parent.name) for path in pages.PAGES])
def test_the_published_tables_are_those_of_the_stored_results(path):
    page = path.read_text(encoding="utf-8")
    expected = pages.blocks(RESULTS)[path]
    assert sorted(markers.names(page)) == sorted(expected)
    for name, body in expected.items():
        assert markers.block(page, name) == body, f"{name} differs: python -m benchmarks --tables"


PROSE = sorted({*pages.PAGES, *(ROOT / "docs").glob("*.md")})


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in PROSE])
def test_no_measured_figure_is_written_by_hand(path):
    prose = markers.without_blocks(path.read_text(encoding="utf-8"))
    prose = re.sub(r"^```.*?^```|`[^`]*`", "", prose, flags=re.MULTILINE | re.DOTALL)
    # Limits of the formats, and by definition.
    for stated in ("past 1 GB", "past 2 GB", "95 % interval", "may hold 200 MB", "below some\n4 MB more"):
        prose = prose.replace(stated, "")
    assert re.findall(r"\d[\d.,]*\s*(?:ms|s|seconds|minutes|[kMG]B|%|x|times|points)(?![\w/])", prose) == []


def test_the_screens_of_the_front_page_stand_below_their_commands():
    page = pages.FRONT.read_text(encoding="utf-8")
    for name, command_line in quickstart.COMMANDS.items():
        above, marker, _ = page.partition(markers.begin(f"quickstart-{name}"))
        commands = re.findall(
            r"^(?:.* && )?(vit-deploy .*)$", "".join(re.findall(r"^```bash\n(.*?)^```", above, re.M | re.S)), re.M
        )
        assert marker and commands[-1] == command_line.format(scale=quickstart.SCALE)


def test_every_result_says_when_where_and_with_what():
    for path in RESULTS.rglob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["schema"] == 1 and result["started"].endswith("UTC"), path
        assert result["host"]["cpu"] and result["host"]["load_1m"] >= 0 and result["versions"]["numpy"], path
        assert path.parent.name in PARTS, path


def test_a_text_goes_between_its_markers_and_nowhere_else():
    one, two = ((markers.begin(name), markers.end(name)) for name in ("one", "two"))
    page = "\n".join(["above", one[0], "old", one[1], "below", *two, ""])
    once = markers.replaced(page, "one", "new")
    assert markers.block(once, "one") == "new" and markers.names(once) == ["one", "two"]
    assert once.startswith("above\n") and "\nbelow\n" in once and "old" not in once
    assert markers.replaced(once, "one", "new") == once
    assert "new" not in markers.without_blocks(once)
    with pytest.raises(ValueError, match="no block three"):
        markers.replaced(page, "three", "")


def test_targets_are_met_missed_or_not_measured_and_rounding_hides_no_miss():
    targets = [Target("a", 0.45, 0.4504), Target("b", 2.0, 2.5, at_least=True), Target("c", 1.0, None)]
    assert [target.met for target in targets] == [False, True, None]
    lines = target_table(targets).splitlines()[2:]
    assert lines == [
        "| a | ≤ 0.45 | 0.4504 | **missed** |",
        "| b | ≥ 2 | 2.50 | met |",
        "| c | ≤ 1 | - | not measured |",
    ]


def test_a_figure_whose_error_passes_the_limit_meets_nothing_and_excuses_no_miss():
    targets = [
        Target("a", 0.7, 0.4, error=1.13),
        Target("b", 0.7, 0.4, error=0.2),
        Target("c", 0.7, 0.8, error=1.13),
        Target("d", 0.7, 0.8, at_least=True, error=0.2),
    ]
    assert [target.met for target in targets] == [None, True, False, None]
    assert target_table(targets).splitlines()[2:] == [
        "| a | ≤ 0.7 | 0.40 ± 1.13 | cannot be told |",
        "| b | ≤ 0.7 | 0.40 ± 0.20 | met |",
        "| c | ≤ 0.7 | 0.80 ± 1.13 | **missed** |",
        "| d | ≥ 0.7 | 0.80 ± 0.20 | cannot be told |",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("part", [each for each in ALL if each.id != "export"])  # whose own test looks closer
def test_a_miniature_of_every_part_runs_and_prints_its_tables(part, tmp_path):
    if gaps := part.missing():
        pytest.skip(f"{', '.join(gaps)} not installed")
    arguments = ["--quick", "--only", part.name, "--results", str(tmp_path), "--trained", str(tmp_path / "trained")]
    done = subprocess.run([sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = part.stored(tmp_path)
    assert found and all(each["schema"] == 1 and each["took_s"] > 0 for each in found.values())
    assert done.stdout.strip() == f"## {part.name}\n\n{part.render(found)}".strip()
