"""What a machine lacks to run models in a browser."""

from __future__ import annotations

from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes.web.browsers import installed_browsers
from vit_deploy.runtimes.web.engines import ENGINES
from vit_deploy.runtimes.web.packages import VARIABLE, Package, packages_for


def lacking() -> tuple[str, ...]:
    """What is not there, in words: a browser, or every package that could run a file in one."""
    gaps = () if installed_browsers() else ("a browser",)
    engines = [engine.packages[0] for engine in ENGINES.values()]
    return gaps if installed_packages() else (*gaps, f"{' or '.join(engines)} in the folder that {VARIABLE} names")


def installed_packages() -> tuple[Package, ...]:
    """The packages in the folder that the environment names, of every format whose packages are all there."""
    found: list[Package] = []
    for format in ENGINES:
        try:
            found += packages_for(format)
        except MissingEngineError:
            continue
    return tuple(found)
