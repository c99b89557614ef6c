"""Tolerances that the user sets, on the command line and in `pyproject.toml`.

    [tool.vit-deploy.verify]          # for artifacts of every precision
    kl = 0.05
    allow_tf32 = false

    [tool.vit-deploy.verify.int8]     # for those of one
    snr_db = 25
    flips = "none"                    # reported, not held

The table is looked for in the nearest `pyproject.toml`, from the working folder upwards. What the command line asks for
counts most, then the precision's own table, then the common one, then `tolerances.DEFAULTS`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.errors import ConfigError
from vit_deploy.verification.tolerances import LIMITS, Limits, precisions

PYPROJECT = "pyproject.toml"
TABLE = "tool.vit-deploy.verify"
NOT_HELD = "none"
ALLOW_TF32 = "allow_tf32"

Limit = float | None  # None: not held


def read_limits(start: Path) -> Limits:
    """What the nearest `pyproject.toml` from `start` upwards asks for; nothing where there is none.

    Raises:
        ConfigError: the file cannot be read, or its table has unknown keys or values that are no limits.
    """
    folder = start.resolve()
    found = next((parent / PYPROJECT for parent in (folder, *folder.parents) if (parent / PYPROJECT).is_file()), None)
    if found is None:
        return Limits()
    import tomllib  # which Python 3.10 on a device lacks, where nobody reads them

    try:
        document = tomllib.loads(found.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # a TOML or UTF-8 error is a ValueError
        raise ConfigError(f"{found} cannot be read: {error}", fix="correct the file") from error
    table: Any = document
    for name in TABLE.split("."):
        table = table.get(name, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise ConfigError(f"{found}: {TABLE} is no table", fix=f"write [{TABLE}]")
    own = {name: value for name, value in table.items() if isinstance(value, dict)}
    allow = table.get(ALLOW_TF32, False)
    if not isinstance(allow, bool):
        raise ConfigError(f"{found}: {ALLOW_TF32} is {allow!r}", fix="write true or false")
    if unknown := sorted(set(own) - set(precisions())):
        raise ConfigError(
            f"{found}: [{TABLE}.{unknown[0]}] is for no precision", fix=f"choose of {', '.join(precisions())}"
        )
    common = {name: value for name, value in table.items() if name not in own and name != ALLOW_TF32}
    return Limits(
        common=_checked(common, f"{found}: [{TABLE}]"),
        own={name: _checked(values, f"{found}: [{TABLE}.{name}]") for name, values in own.items()},
        allow_tf32=allow,
        source=found,
    )


def parse_limits(texts: Sequence[str]) -> dict[str, Limit]:
    """Limits from texts such as "max_abs=1e-4" or "flips=none"; of one that comes twice the last counts.

    Raises:
        ConfigError: anything else; all that is wrong is named.
    """
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--tolerance is {text!r}", fix="write METRIC=LIMIT, as max_abs=1e-4 or snr_db=25")
        try:
            values[name.strip()] = float(value)
        except ValueError:
            values[name.strip()] = value.strip()
    return limits_in(values)


def limits_in(values: Mapping[str, float | str | None]) -> dict[str, Limit]:
    """Limits by metric; None and "none" stand for a metric that is not held.

    Raises:
        ConfigError: metrics that there are not, or values that are no limits; all that is wrong is named.
    """
    named = {name: NOT_HELD if value is None else value for name, value in values.items()}
    return _checked(named, "--tolerance")


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Limit]:
    if unknown := [name for name in values if name not in LIMITS]:
        raise ConfigError(f"{where}: no such metric: {', '.join(unknown)}", fix=f"choose of {', '.join(LIMITS)}")
    if wrong := [
        f"{name} is {value!r}" for name, value in values.items() if value != NOT_HELD and not _is_limit(value)
    ]:
        raise ConfigError(
            f"{where}: {', '.join(wrong)}; expected a finite number",
            fix=f"give finite numbers, or {NOT_HELD!r} for one not to be held",
        )
    ranges = {name: (*_range(name), value) for name, value in values.items() if value != NOT_HELD}
    if outside := [
        f"{name} = {value:g}, and it lies between {least:g} and {most:g}"
        for name, (least, most, value) in ranges.items()
        if not least <= value <= most
    ]:
        raise ConfigError(f"{where}: {'; '.join(outside)}", fix="give a limit that can be met and missed")
    return {name: None if value == NOT_HELD else float(value) for name, value in values.items()}


def _range(name: str) -> tuple[float, float]:
    """What values the metric can have."""
    if name.endswith("cosine"):
        return -1.0, 1.0
    if name.endswith("agreement") or name == "flips":
        return 0.0, 1.0
    return (0.0, math.inf) if LIMITS[name].at_most else (-math.inf, math.inf)


def _is_limit(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
