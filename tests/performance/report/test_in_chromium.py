"""The page as a browser without network shows it, at the widths of a phone and a desktop, light and dark."""

from __future__ import annotations

import pytest
from browser import CHROMIUM, Browser

from vit_deploy.performance.report import written

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture
def report(gathered, tmp_path):
    pytest.importorskip("vl_convert")
    path = tmp_path / "report.html"
    path.write_text(written(gathered, "What was measured", ".html"), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_fits_shows_every_chart_once_and_asks_for_nothing(browser, report, tmp_path, size, dark):
    browser.asked.clear()
    browser.said.clear()
    browser.open(report, **size, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= size["width"]
    shown = browser.run("[...document.querySelectorAll('svg')].filter(each => each.getClientRects().length).length")
    assert shown == browser.run("document.querySelectorAll('figure').length") == 6
    wide = "[...document.querySelectorAll('svg')].every(e => e.getBoundingClientRect().right <= innerWidth)"
    assert browser.run(wide)
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    point = "getComputedStyle(document.querySelector('svg .role-mark [aria-label]')).stroke"
    assert browser.run(point) == ("rgb(108, 182, 255)" if dark else "rgb(11, 98, 180)")  # follows the page
    assert browser.asked == [report.as_uri()] and browser.said == []
    # Text of a chart is as large as that of the page would be at its smallest, and not scaled away.
    assert browser.run(
        "[...document.querySelectorAll('svg text')].filter(e => e.getClientRects().length)"
        ".every(e => e.getBoundingClientRect().height >= 9 || e.getBoundingClientRect().width >= 9)"
    )
    # On a phone a case keeps room for the words of its name; on a desktop all of the latencies are seen at once.
    if size is PHONE:
        assert browser.run("getComputedStyle(document.querySelector('#costs tbody th')).minWidth") == "136px"
    else:
        fits = "(each => each.scrollWidth <= each.clientWidth)(document.querySelector('#latency .scroll'))"
        assert browser.run(fits)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_tables_sort_from_the_keyboard_and_say_so(browser, report):
    browser.open(report, **DESKTOP)
    artifacts = "[...document.querySelectorAll('#latency tbody tr')].map(row => row.cells[0].textContent)"
    figures = "[...document.querySelectorAll('#latency tbody tr')].map(row => Number(row.cells[4].dataset.key))"
    sorting = "document.querySelector('#latency thead th:nth-child(5)').getAttribute('aria-sort')"
    before = browser.run(figures)
    assert before != sorted(before) and browser.run(sorting) is None
    browser.run("document.querySelector('#latency thead th:nth-child(5) button').focus()")
    browser.press("Enter")
    assert browser.run(figures) == sorted(before) and browser.run(sorting) == "ascending"
    assert browser.run("document.getElementById('said').textContent") == "sorted by p50 ms, ascending"
    browser.press("Enter")
    assert browser.run(figures) == sorted(before, reverse=True) and browser.run(sorting) == "descending"
    browser.run("document.querySelector('#latency thead th:nth-child(1) button').focus()")
    browser.press("Enter")
    names = browser.run(artifacts)
    assert names == sorted(names) and browser.run(sorting) is None
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_the_tab_key_reaches_what_can_be_used_and_the_focus_is_seen(browser, report):
    browser.open(report, **DESKTOP)
    stops = []
    for _ in range(14):
        browser.press("Tab")
        stops.append(browser.run("document.activeElement.textContent.slice(0, 40)"))
        assert browser.run("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert stops[0] == "Skip to the results"
    assert stops[1] == "Which file to ship" and "Charts" in stops[2]
    assert any(stop.startswith("artifact") for stop in stops)


def test_screen_readers_are_told_names_roles_and_marks(browser, report):
    browser.open(report, **PHONE)
    nodes = browser.ask("Accessibility.getFullAXTree")["nodes"]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]
    roles = {role for role, _ in told}
    assert {"banner", "navigation", "main", "contentinfo", "heading", "table", "columnheader", "rowheader"} <= roles
    names = [name for _, name in told]
    assert "Latency against size" in names
    marks = [name for name in names if name.startswith("onnx-int8, onnxruntime (cpu): 1.00 ms")]
    assert len(marks) == 3  # once in each of three charts, though each is drawn for two widths
