"""What of browsers is on a machine: programs, WebGPU adapters, and the engines' JavaScript."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vit_deploy.errors import EngineError
from vit_deploy.runtimes.web.browsers import Browser, installed_browsers
from vit_deploy.runtimes.web.engines import ENGINES
from vit_deploy.runtimes.web.facts import browser_in, provider_on
from vit_deploy.runtimes.web.found import installed_packages
from vit_deploy.runtimes.web.packages import VARIABLE, Package
from vit_deploy.runtimes.web.page import open_page

LIMIT_S = 60.0


@dataclass(frozen=True)
class BrowserFound:
    """A browser that is installed.

    Args:
        path: of its program.
        name: with its version; empty where it was not opened, or does not open.
        adapter: its WebGPU adapter; empty where it has none, or was not asked.
        provider: what the runtime calls that adapter.
        failure: why it does not open a page; empty where it does, or was not asked.
    """

    path: str
    name: str = ""
    adapter: str = ""
    provider: str = ""
    failure: str = ""


@dataclass(frozen=True)
class WebFound:
    """What there is to run models in browsers.

    Args:
        browsers: those that are installed.
        packages: in the folder that the environment names.
    """

    browsers: tuple[BrowserFound, ...]
    packages: tuple[Package, ...]

    @property
    def install(self) -> str:
        """The command that brings the packages, and what to do then."""
        names = " ".join(name for engine in ENGINES.values() for name in engine.packages)
        return f"npm install {names}, and name node_modules in {VARIABLE}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "browsers": [dict(vars(browser)) for browser in self.browsers],
            "packages": [package.to_dict() for package in self.packages],
        }


def look_for_browsers() -> WebFound:
    """Look at this machine; browsers are opened where there is JavaScript for them to run."""
    packages = installed_packages()
    opened = map(_opened if packages else _seen, installed_browsers())
    return WebFound(tuple(opened), packages)


def _seen(browser: Browser) -> BrowserFound:
    return BrowserFound(browser.path)


def _opened(browser: Browser) -> BrowserFound:
    try:
        with open_page(browser, {}, {}, webgpu=True, timeout_s=LIMIT_S) as page:
            seen, _ = page.ask("look", "say what it is", webgpu=True)
    except EngineError as error:
        return BrowserFound(browser.path, failure=error.message)
    adapter = seen["adapter"]
    if adapter is None:
        return BrowserFound(browser.path, browser_in(seen))
    return BrowserFound(browser.path, browser_in(seen), adapter["name"], provider_on(adapter))
