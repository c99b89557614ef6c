from __future__ import annotations

import importlib.util
import itertools
import json
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from records import ARTIFACTS, HOST, evaluated, latency, measured, verified

from vit_deploy.core.documents import document
from vit_deploy.errors import MissingEngineError
from vit_deploy.performance.latency import to_json
from vit_deploy.performance.report import WRITERS, written
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.html import Markup, element
from vit_deploy.performance.report.page import page
from vit_deploy.performance.report.style import COLOURS

VOID = {"meta", "br", "link", "img"}
HOSTILE = "\"><script>alert(1)</script><img src='http://evil.example/x' onerror=alert(1)>&amp;{{7*7}}"


class Page(HTMLParser):
    """The elements of a page, in their order; fails where one is not closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))
        assert len(dict(attributes)) == len(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(text)

    def all(self, tag):
        return [attributes for name, attributes, _ in self.elements if name == tag]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    records = {
        "bench": measured(),
        "evaluate": [evaluated(name) for name in ARTIFACTS],
        "verify": [verified(name) for name in ARTIFACTS],
    }
    for command, found in records.items():
        (folder / f"{command}.json").write_text(json.dumps(document(command, found, ok=True)))
    pytest.importorskip("vl_convert")
    return written(gather(sorted(folder.glob("*.json"))), "What was measured", ".html")


@pytest.fixture(scope="module")
def parsed(shown):
    return Page(shown)


def test_the_page_has_landmarks_a_title_and_headings_that_skip_no_level(parsed):
    tags = [tag for tag, *_ in parsed.elements]
    for landmark in ("header", "nav", "main", "footer", "title", "h1"):
        assert tags.count(landmark) == 1, landmark
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert parsed.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in parsed.all("meta")
    assert parsed.all("a")[0]["href"] == "#main"  # the first stop of the keyboard


def test_what_refers_to_an_id_finds_one(parsed):
    ids = [attributes["id"] for _, attributes, _ in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {link["href"].removeprefix("#") for link in parsed.all("a")}
    for _, attributes, _ in parsed.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            wanted |= set(attributes.get(name, "").split())
    assert wanted <= set(ids)


def test_each_chart_has_a_name_a_description_and_marks_with_labels(parsed):
    charts = parsed.all("svg")
    assert len(charts) == 2 * len(parsed.all("figure")) == 12
    for chart in charts:
        assert chart["role"] == "graphics-document document"
        assert chart["aria-labelledby"] and chart["aria-describedby"]
    labels = [attributes.get("aria-label", "") for _, attributes, _ in parsed.elements]
    assert sum("onnx-int8, onnxruntime (cpu): 1.00 ms" in label for label in labels) == 6  # three charts at two widths


def test_each_table_has_a_caption_and_headings_of_rows_and_columns(parsed):
    tables = parsed.all("table")
    assert len(tables) == len(parsed.all("caption")) == 6
    assert {cell["scope"] for cell in parsed.all("th")} == {"row", "col"}
    regions = [block for block in parsed.all("div") if block.get("role") == "region"]
    assert len(regions) == 6 and all(region["tabindex"] == "0" and region["aria-labelledby"] for region in regions)
    assert [block for block in parsed.all("div") if block.get("aria-live") == "polite"]


def test_figures_sort_by_what_was_measured_and_not_by_what_is_shown(parsed, gathered):
    keys = [float(cell["data-key"]) for cell in parsed.all("td") if "data-key" in cell]
    assert {case.latency.p50_ms for case in gathered.cases} <= set(keys)


def test_nothing_is_fetched(shown, parsed):
    for tag, attributes, _ in parsed.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "audio", "video", "image", "use", "form", "base")
        for name in ("src", "srcset", "action", "data", "poster", "xlink:href", "background"):
            assert name not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") or "url(" in (value or "") for name, value in attributes.items())
    addresses = set(re.findall(r"(?i)\b(?:https?|ftp|wss?):/*[^\s\"'<)]*", shown))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"} - {
        "http://www.w3.org/1999/xlink"
    }
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|\bimport\b", shown)
    [policy] = [each["content"] for each in parsed.all("meta") if each.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ") and "script-src 'sha256-" in policy


def test_what_a_file_says_is_text_and_nothing_else(write):
    pytest.importorskip("vl_convert")
    host = {**HOST.to_dict(), "cpu": HOSTILE}
    profile = [{"operator": HOSTILE, "calls": 1, "ms": 1.0, "share": 1.0}]
    records = [
        {
            **to_json(latency("a")),
            "artifact": name,
            "host": host,
            "profile": profile,
            "provider": HOSTILE,
            "on": HOSTILE,
        }
        for name in (HOSTILE, "=other")
    ]
    found_right = [{"artifact": HOSTILE, "top1": 0.5}, {"artifact": "=other", "top1": 0.6}]
    proven = [{"artifact": HOSTILE, "precision": HOSTILE, "verdict": HOSTILE, "metrics": {}}]
    documents = [write("bench", records), write("evaluate", found_right), write("verify", proven)]
    text = written(gather(documents), HOSTILE, ".html")
    found = Page(text)
    assert len(found.all("script")) == 1 and not found.all("img")
    assert HOSTILE in found.texts
    assert not [name for _, attributes, _ in found.elements for name in attributes if name.startswith("on")]
    assert "<script>alert" not in text and "<img" not in text


def test_the_same_results_give_the_same_page(gathered):
    def drawing(spec, *others):
        return Markup("<svg></svg>")

    assert page(gathered, "t", drawing) == page(gathered, "t", drawing)


def test_children_are_escaped_and_markup_is_not():
    assert element("p", "a<b", element("br"), class_='x"y', id=None) == '<p class="x&quot;y">a&lt;b<br></p>'


def luminance(colour):
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_as_wcag_asks_at_level_aa(scheme):
    style = (files("vit_deploy.performance.report") / "page.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{([^}]*)\}", style)
    assert len(blocks) == 2
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    assert len(colours) == 8 + COLOURS
    for ground in ("page", "panel"):
        for name in ("text", "muted", "accent", "warn"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in ("line", *(f"series-{index}" for index in range(COLOURS))):
        assert contrast(colours[name], colours["page"]) >= 3, name


def test_without_the_library_that_draws_the_extra_is_named(gathered, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vl_convert" else real(name))
    with pytest.raises(MissingEngineError, match="vl_convert") as error:
        written(gathered, "t", ".html")
    assert error.value.fix == 'pip install "vit-deploy[report]"'
    assert written(gathered, "t", ".md") and written(gathered, "t", ".csv")
    assert list(WRITERS) == [".html", ".md", ".csv"]
