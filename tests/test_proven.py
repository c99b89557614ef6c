"""The README's table of what was proven how: each row by something that is there, and each target in a row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.test_arm import CPUS
from vit_deploy.core.format_table import FORMATS
from vit_deploy.exporters.npu import known_targets
from vit_deploy.formats.accelerators import DATA

ROOT = Path(__file__).parent.parent
KINDS = ("silicon", "emulation", "simulator", "compiler", "documents")
HEADER = "| target | proven by | with |"


def rows():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    start = lines.index(HEADER) + 2
    for line in lines[start:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def targets(kind):
    return " ".join(target for target, proven_by, _ in rows() if proven_by == kind)


def test_each_row_says_one_of_five_ways_the_surest_first():
    kinds = [kind for _, kind, _ in rows()]
    assert set(kinds) <= set(KINDS) and kinds == sorted(kinds, key=KINDS.index)


@pytest.mark.parametrize(("target", "kind", "proof"), rows())
def test_each_row_names_a_test_or_a_page_that_is_there(target, kind, proof):
    links = re.findall(r"\]\(([^)#]+)", proof)
    assert links and all((ROOT / link).exists() for link in links)
    # What is more than documents is held by a test or measured.
    assert kind == "documents" or any(link.startswith(("tests/", "benchmarks/")) for link in links)


def test_what_is_emulated_is_in_the_table_as_that_and_as_nothing_more():
    for cpu in CPUS:
        assert cpu in targets("emulation").lower()
        assert not any(cpu in targets(kind).lower() for kind in KINDS if kind != "emulation")


def test_everything_that_can_be_compiled_for_is_in_the_table_and_is_not_called_proven_on_silicon():
    families = {re.match(r"[a-z]+(-[a-z]+\d+)?", target)[0] for target in known_targets()}
    named = {"tflm": "tensorflow lite micro", "qnn": "hexagon"}
    for family in families:
        words = named.get(family.partition("-")[0], family)
        assert any(words in targets(kind).lower() for kind in ("emulation", "simulator", "compiler")), family
        assert words not in targets("silicon").lower()


def test_accelerators_of_which_rules_are_known_are_in_the_table():
    every = " ".join(target for target, *_ in rows()).lower()
    for record in json.loads(DATA.read_text(encoding="utf-8")).values():
        families = re.findall(r"hexagon|edge tpu|ethos-u\d+", record["name"].lower())
        assert families and all(family in every for family in families), record["name"]


def test_engines_are_in_the_table():
    every = " ".join(target for target, *_ in rows()).lower().replace(" ", "")
    words = {"savedmodel": "tensorflow", "web": "browsers", "tflm": "tensorflowlitemicro", "qnn": "hexagon"}
    for name in FORMATS.runtimes():
        if name != "keras":
            assert words.get(name, name) in every, name
