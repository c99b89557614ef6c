"""What a model's folder says of its licence, and the code in it that nothing runs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CARD = "README.md"
CONFIG = "config.json"
MAX_BYTES = 1 << 24  # that are looked into
FRONT_MATTER = re.compile(r"\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)
ENTRY = re.compile(r"([A-Za-z_][\w-]*):[ \t]*(.*)$")
OTHER = "other"  # the licence of a card that gives its name in an entry of its own
LISTED_CODE = 5


@dataclass(frozen=True)
class Licence:
    """What a card says.

    Args:
        name: identifier, as "apache-2.0"; several joined by ", "; empty where it says none.
        link: where the text is.
    """

    name: str = ""
    link: str = ""


def licence_of(folder: Path) -> Licence:
    """The licence in the front matter of a folder's card, else in the config that timm writes."""
    entries = front_matter(_start_of(folder / CARD))
    names = entries.get("license", [])
    if [name.lower() for name in names] == [OTHER] and entries.get("license_name"):
        names = entries["license_name"]
    if names:
        return Licence(", ".join(names), next(iter(entries.get("license_link", [])), ""))
    pretrained = _config(folder).get("pretrained_cfg")
    said = pretrained.get("license") if isinstance(pretrained, dict) else None
    return Licence(said if isinstance(said, str) else "")


def foreign_code(folder: Path, files: Iterable[str] = ()) -> tuple[str, ...]:
    """What transformers would run with `trust_remote_code`, by name.

    Args:
        folder: with the config.
        files: names of all files of the repository, of which not all are in the folder.
    """
    config = _config(folder)
    listed = [f"auto_map in {CONFIG}"] if config.get("auto_map") or config.get("custom_pipelines") else []
    scripts = sorted(name for name in files if name.endswith(".py"))
    more = [f"{len(scripts) - LISTED_CODE} more files"] if len(scripts) > LISTED_CODE else []
    return (*listed, *scripts[:LISTED_CODE], *more)


def front_matter(text: str) -> dict[str, list[str]]:
    """Entries of a card's front matter that are a text or a list of texts, each as a list.

    What is nested is passed over: licences are not.
    """
    found = FRONT_MATTER.match(text)
    entries: dict[str, list[str]] = {}
    name = ""
    for line in found[1].splitlines() if found else ():
        if item := re.match(r"[ \t]*-[ \t]+(.*)$", line):
            if name and (value := _scalar(item[1])):
                entries[name].append(value)
        elif entry := ENTRY.match(line):
            name = entry[1]
            inline = entry[2].strip()
            values = inline[1:-1].split(",") if inline.startswith("[") and inline.endswith("]") else [inline]
            entries[name] = [value for given in values if (value := _scalar(given))]
        elif line.strip() and not line.lstrip().startswith("#"):
            name = ""  # inside of something nested
    return entries


def _scalar(text: str) -> str:
    """A plain or quoted text of YAML; nothing of a mapping or a block."""
    text = text.strip()
    if text[:1] in ("'", '"'):
        return text[1:].partition(text[0])[0]
    text = re.split(r"[ \t]#|^#", text)[0].strip()
    return "" if text in ("", "null", "~", "|", ">") or ": " in text else text


def _start_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("utf-8", errors="replace")
    except OSError:  # a card is not what a checkpoint stands or falls with
        return ""


def _config(folder: Path) -> dict[str, object]:
    try:
        found = json.loads(_start_of(folder / CONFIG) or "{}")
    except (ValueError, RecursionError):  # the dialect that reads it says so
        return {}
    return found if isinstance(found, dict) else {}
