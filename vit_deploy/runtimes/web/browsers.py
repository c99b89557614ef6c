"""Browsers that can be started without a window, and the arguments that each kind takes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.errors import MissingEngineError

CHROMIUMS = (
    *("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome", "msedge", "microsoft-edge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)
FIREFOXES = ("firefox", "firefox-esr", "/Applications/Firefox.app/Contents/MacOS/firefox")
FIX = "install Chromium (apt install chromium) or Firefox, or name a browser with --browser"

QUIET = (
    *("--headless=new", "--no-first-run", "--no-default-browser-check", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions", "--disable-breakpad"),
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-dev-shm-usage"),
)
SANDBOX_REFUSES_ROOT = "--no-sandbox"  # the one page that is opened is ours
WEBGPU = "--enable-unsafe-webgpu"  # without it there is no adapter but a GPU's
PREFERENCES = {
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "dom.max_script_run_time": 0,
}


@dataclass(frozen=True)
class Browser:
    """A browser's program.

    Args:
        path: of the program.
    """

    path: str

    @property
    def is_firefox(self) -> bool:
        """Whether it takes Firefox's arguments; Chromium's otherwise."""
        return "firefox" in Path(self.path).name.lower()

    def command(self, url: str, profile: Path, *, webgpu: bool = False) -> list[str]:
        """The command that opens a page without a window.

        Args:
            url: of the page.
            profile: an empty folder; what the browser keeps goes there.
            webgpu: whether WebGPU is wanted, on a software adapter if there is no GPU.
        """
        if self.is_firefox:
            lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
            (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
            return [self.path, "--headless", "--no-remote", "--profile", str(profile), url]
        needed = [WEBGPU] if webgpu else []
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            needed.append(SANDBOX_REFUSES_ROOT)
        return [self.path, *QUIET, *needed, f"--user-data-dir={profile}", url]


def find_browser(requested: str | None = None) -> Browser:
    """The requested browser, or the first that is installed, Chromium's kind before Firefox.

    Args:
        requested: the path of its program, or its name on the path.

    Raises:
        MissingEngineError: there is none.
    """
    if requested is not None:
        found = shutil.which(requested)
        if found is None:
            others = " or ".join(browser.path for browser in installed_browsers())
            raise MissingEngineError(
                f"there is no browser {requested or repr(requested)}",
                fix="give the path of a browser's program" + (f", as {others}" if others else ""),
            )
        return Browser(found)
    browsers = installed_browsers()
    if not browsers:
        raise MissingEngineError("the runtime 'web' needs a browser, and none is installed", fix=FIX)
    return browsers[0]


def installed_browsers() -> tuple[Browser, ...]:
    """The first browser of Chromium's kind and the first Firefox, where they are installed."""
    found = (next(filter(None, map(shutil.which, names)), None) for names in (CHROMIUMS, FIREFOXES))
    return tuple(Browser(path) for path in found if path is not None)
