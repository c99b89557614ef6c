"""The page in Firefox without network: proves itself, is used from the keyboard, and sees what `predict` sees."""

from __future__ import annotations

import re
import time

import pytest
from firefox import Firefox

import vit_deploy

pytestmark = pytest.mark.slow
STATE = "document.documentElement.dataset.ready"


@pytest.fixture(scope="module")
def browser(firefox):
    with Firefox() as found:
        yield found


def wait(browser, condition):
    end = time.monotonic() + 60
    while not browser.run(condition):
        assert time.monotonic() < end, f"{condition} does not come true"
        time.sleep(0.05)


def seen(browser):
    rows = "[...document.querySelectorAll('#classes li')]"
    return browser.run(f"{rows}.map(e => ({{...e.dataset, name: e.querySelector('.name').textContent}}))")


def focused(browser):
    return browser.run("document.activeElement.id || document.activeElement.textContent")


def text(browser, name):
    return browser.run(f"document.getElementById('{name}').innerText")


def test_it_is_used_from_the_keyboard_alone_and_sees_what_predict_sees(browser, page, artifacts, photos):
    browser.open(page)
    wait(browser, f"['yes', 'failed'].includes({STATE})")
    assert text(browser, "verdict") == "Same as the reference"
    assert "answers 8 recorded images as the float64 reference does" in text(browser, "checks")
    assert "becomes the same pixels as where the model was exported, to the byte" in text(browser, "checks")
    browser.press("Tab")
    assert focused(browser) == "Skip to the picture"
    browser.press("Tab")
    assert focused(browser) == "model"
    browser.press("ArrowDown")  # to the other precision, which is loaded and proven
    wait(browser, f"{STATE} === 'yes' && document.getElementById('card').innerText.includes('int8')")
    assert "signal to noise ratio" in text(browser, "checks")
    browser.press("ArrowUp")
    wait(browser, f"{STATE} === 'yes' && document.getElementById('card').innerText.includes('fp32')")
    browser.press("Tab")
    assert focused(browser) == "file"
    style = "getComputedStyle(document.querySelector('.button'))"
    assert browser.run(f"{style}.outlineStyle") == "solid"  # where the focus is can be seen
    for photo in photos:
        browser.run("void (document.getElementById('said').textContent = '')")
        browser.give_file("#file", photo)
        wait(browser, "!!document.getElementById('said').textContent")
        top = vit_deploy.predict(artifacts[0], photo).result.top
        found = seen(browser)
        assert [row["name"] for row in found] == [entry.label for entry in top]
        assert [float(row["logit"]) for row in found] == pytest.approx([entry.logit for entry in top], abs=2e-5)
        assert text(browser, "notes") == ""
        assert re.fullmatch(r"Preprocessing \d+ ms, model \d+ ms\.", text(browser, "latency"))
    browser.press("Tab")
    browser.press("Tab")
    assert focused(browser) == "Licences of what is in this page"
    browser.press("Enter")
    assert browser.run("document.querySelector('footer details').open")
    asked = browser.run("performance.getEntriesByType('resource').map(({name}) => name.split(':')[0])")
    assert set(asked) <= {"blob"}


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits(browser, page, width):
    browser.ask("WebDriver:SetWindowRect", width=width, height=900)
    browser.open(page)
    wait(browser, f"['yes', 'failed'].includes({STATE})")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
