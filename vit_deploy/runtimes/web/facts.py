"""What a page has seen of its browser, as names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vit_deploy.runtimes.web.engines import WEBGPU

SOFTWARE = ("swiftshader", "llvmpipe", "lavapipe", "warp")
OWN_NAMES = ("Google Chrome", "Microsoft Edge", "Chromium", "HeadlessChrome")
IN_AGENT = re.compile(r"(Firefox|HeadlessChrome|Chrome)/([\d.]+)")


def browser_in(seen: Mapping[str, Any]) -> str:
    """Name and version of the browser.

    Args:
        seen: the answer of the page to `look`.
    """
    name = next((name for name in OWN_NAMES if name in seen["versions"]), None)
    if name is not None:
        return f"{name} {seen['versions'][name]}"
    found = IN_AGENT.search(seen["agent"])
    return f"{found[1]} {found[2]}" if found else str(seen["agent"])


def provider_on(adapter: Mapping[str, Any]) -> str:
    """The name of WebGPU on an adapter, which is its own where the adapter is software.

    Args:
        adapter: what the page says of it.
    """
    known = next((name for name in SOFTWARE if name in adapter["name"].lower()), None)
    if known is None and not adapter["software"]:
        return WEBGPU
    return f"{WEBGPU}-{known or 'software'}"
