from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.verification.parity import compare
from vit_deploy.verification.records import judged, verification
from vit_deploy.verification.reports.github import annotated
from vit_deploy.verification.reports.junit import junit
from vit_deploy.verification.reports.pull_request import markdown
from vit_deploy.verification.tolerances import Tolerance
from vit_deploy.verification.verifying import Check, Verification

# What Jenkins' junit-10.xsd allows: children, required attributes, further attributes.
TIME = re.compile(r"(([0-9]{0,3},)*[0-9]{3}|[0-9]{0,3})*(\.[0-9]*)?")
MESSAGE = (set(), set(), {"type", "message"})
SCHEMA = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", "tests", "failures", "errors"}),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    "testcase": ({"skipped", "error", "failure"}, {"name"}, {"time", "classname", "group"}),
    **dict.fromkeys(("failure", "error", "skipped"), MESSAGE),
}


@pytest.fixture(scope="module")
def records(bundles):
    truth = np.random.default_rng(5).standard_normal((8, 5))
    good = compare(truth.astype(np.float32), truth, Tolerance(max_abs=1e-5), classes=True)
    bad = compare((truth + 0.5).astype(np.float32), truth, Tolerance(snr_db=40, cosine=0.99), classes=True)
    named = {format: read_artifact(path) for format, path in bundles.items()}
    checks = (
        Check("batch of 7", False, "odd \x1b[31m <letters> & 50% | `code`\nand a line"),
        Check("very large input", True, "left out: beyond the range"),
        Check("zero input", True),
    )
    found = [
        Verification(named["onnx"], "onnxruntime", "cpu", good, (Check("zero input", True),), 0.25),
        Verification(named["tflite"], "litert", "xnnpack", bad, checks, 1.5),
        Verification(named["savedmodel"], "savedmodel", "cpu", good.failed("no"), (), 0.125),
    ]
    return [verification(each) for each in found]


def assert_follows_the_schema(element):
    children, required, optional = SCHEMA[element.tag]
    assert required <= set(element.attrib) <= required | optional, element.tag
    assert {child.tag for child in element} <= children
    if "time" in element.attrib:
        assert TIME.fullmatch(element.attrib["time"])
    for child in element:
        assert_follows_the_schema(child)


def test_junit_follows_the_schema_and_its_counts_are_those_of_its_cases(records):
    root = ElementTree.fromstring(junit(records).encode())
    assert root.tag == "testsuites" and len(root) == 3
    assert_follows_the_schema(root)
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))
        assert len({case.get("name") for case in cases}) == len(cases)
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["7", "3", "0"]
    assert [suite.get("failures") for suite in root] == ["0", "2", "1"]


def test_junit_says_what_failed_what_was_left_out_and_every_figure(records):
    suite = ElementTree.fromstring(junit(records).encode())[1]
    golden, batch, large, zero = suite.findall("testcase")
    assert golden.get("name") == "golden images" and "signal to noise" in golden.find("failure").get("message")
    message = batch.find("failure").get("message")
    assert "\x1b" not in message and "<letters> & 50%" in message
    assert large.find("skipped").get("message").startswith("left out") and len(zero) == 0
    figures = {element.get("name"): float(element.get("value")) for element in suite.iter("property")}
    assert figures["max_abs"] == pytest.approx(0.5, rel=1e-3) and figures["tolerance.snr_db"] == 40


def test_markdown_has_a_row_an_artifact_and_shows_the_tolerance_beside_the_figure(records):
    text = markdown(records)
    assert text.startswith("### vit-deploy verify: 1 of 3 compute the same function\n")
    rows = [line for line in text.splitlines() if line.startswith("| ✅") or line.startswith("| ❌")]
    assert len(rows) == 3 and rows[0].startswith("| ✅")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) == 2
    for table in tables:
        lines = table.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.search(r"\(≥ 40\.0 dB\)", text) and re.search(r"\(≤ 1\.0e-05\)", text)


def test_markdown_takes_nothing_in_a_message_for_its_own(records):
    [line] = [line for line in markdown(records).splitlines() if "batch of 7" in line]
    assert r"\<letters\> & 50% \| \`code\` and a line" in line


def test_annotations_are_one_line_each_with_what_ends_a_command_escaped(records):
    lines = annotated(records)
    assert all("\n" not in line and re.match(r"::(notice|error|warning) title=[^,:]+::.", line) for line in lines)
    assert lines[0].startswith("::notice title=") and lines[0].endswith("::computes the same function")
    [batch] = [line for line in lines if "batch of 7" in line]
    assert batch.startswith("::error title=") and "50%25 | `code`%0Aand a line" in batch


def test_what_is_inconclusive_is_a_warning(records):
    unsure = {**records[1], "verdict": "inconclusive", "artifact": "a,b:c%"}
    assert annotated([unsure])[0].startswith("::warning title=a%2Cb%3Ac%25 in litert::")
    assert "| ⚠️ |" in markdown([unsure])


def test_a_record_is_told_by_the_figure_that_was_judged() -> None:
    record = {"metrics": {"max_abs": 0.0138861, "snr_db": 34.31}, "tolerance": {"snr_db": 20, "flips": 0.01}}
    assert judged(record) == "signal to noise ratio 34.3 dB, tolerance 20.0 dB"
    assert judged(record | {"tolerance": {}}) == "largest difference 1.4e-02"
