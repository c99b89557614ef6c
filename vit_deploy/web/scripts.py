"""The package's JavaScript modules joined to one script, which a page can hold without another file."""

from __future__ import annotations

import re
from importlib.resources import files

IMPORT = re.compile(r"^import \{[^}]*\} from \"\./[\w.]+\";\n", re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function |const |class )", re.MULTILINE)


def source(name: str) -> str:
    """The text of a file that belongs to this package."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def joined(*names: str) -> str:
    """Modules one after the other, each after those that it imports, without their imports and exports."""
    return "\n".join(EXPORT.sub("", IMPORT.sub("", source(name))) for name in names)
