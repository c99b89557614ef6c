"""Licences and notices of the engines that a page embeds: what their packages hold, and where the rest is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path

from vit_deploy import __version__
from vit_deploy.runtimes.web.packages import Package
from vit_deploy.web.scripts import source

ORT, CORE, UTILS = "onnxruntime-web", "@litertjs/core", "@litertjs/wasm-utils"
MIT, APACHE = "MIT", "Apache-2.0"
# Whose a package is, and under which licence: none of them held its text when this was written.
OWNERS = {
    ORT: ("Copyright (c) Microsoft Corporation", MIT),
    **dict.fromkeys((CORE, UTILS), ("Copyright Google LLC", APACHE)),
}
HELD = re.compile(r"(licen[cs]e|notices?|third[-_ ]?party[-_ ]?notices)(\.\w+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Origin:
    """Where the notices of what an engine is made of are, as its npm package has none.

    Args:
        distributions: Python packages made of the same sources, that hold them; the first that is installed counts.
        file: its name in them.
        why: what they have to do with the engine.
        elsewhere: where they are published.
    """

    distributions: tuple[str, ...]
    file: str
    why: str
    elsewhere: str


ORIGINS: Mapping[str, Origin] = {
    ORT: Origin(
        ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn"),
        "ThirdPartyNotices.txt",
        "which is made of the same sources",
        "ThirdPartyNotices.txt of github.com/microsoft/onnxruntime",
    ),
    CORE: Origin(
        ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos"),
        "THIRD_PARTY_NOTICES.txt",
        "of whose sources LiteRT is made in part",
        "the sources of github.com/google-ai-edge/LiteRT and github.com/tensorflow/tensorflow",
    ),
}


@dataclass(frozen=True)
class Notices:
    """A text that a page has to hold.

    Args:
        package: the npm package that it is about.
        title: what it is, and where it is from.
        text: the text itself.
        of_others: whether it is about the code of others in the package, and not its own licence.
    """

    package: str
    title: str
    text: str
    of_others: bool = True


def notices_of(packages: Sequence[Package]) -> tuple[Notices, ...]:
    """The notices that are installed: in the npm packages themselves, or in Python packages of the same sources."""
    found = []
    for package in packages:
        own = list(_in_package(package))
        found += own if any(notices.of_others for notices in own) else [*own, *_in_python(package)]
    return tuple(found)


def lacking(packages: Sequence[Package]) -> dict[str, str]:
    """The npm packages without notices of what they are made of, and the Python package that would bring these."""
    held = {found.package for found in notices_of(packages) if found.of_others}
    return {name: ORIGINS[name].distributions[0] for name in _names(packages) if name in ORIGINS and name not in held}


def _names(packages: Sequence[Package]) -> list[str]:
    return [package.name for package in packages]


def _in_package(package: Package) -> Iterator[Notices]:
    for path in sorted(package.folder.iterdir()):
        if path.is_file() and HELD.fullmatch(path.name):
            about = f"{path.name} of {package.name} {package.version}"
            yield Notices(package.name, about, _read(path), of_others="notice" in path.name.lower())


def _in_python(package: Package) -> Iterator[Notices]:
    origin = ORIGINS.get(package.name)
    for name in origin.distributions if origin else ():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if origin and file.name == origin.file and path.is_file():
                about = f"{file.name} of {name} {distribution.version}, {origin.why}"
                yield Notices(package.name, f"{package.name}: {about}", _read(path))
                return


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def in_html(packages: Sequence[Package]) -> str:
    """The licences of the engines and of the page's own code, each text once, and the notices that there are."""
    owners = [
        *((f"{package.name} {package.version}", *OWNERS[package.name]) for package in packages),
        (f"vit-deploy {__version__}, its preprocessing and the page itself", "", APACHE),
    ]
    lines = [f"{name}: {licence}. {owner}".rstrip(". ") + "." for name, owner, licence in owners]
    absent = lacking(packages)
    for name in filter(ORIGINS.__contains__, _names(packages)):
        below = "" if name in absent else ", and below as far as they were installed where this page was made"
        lines.append(f"{name} holds code of others, whose notices are in {ORIGINS[name].elsewhere}{below}.")
    lines.append("A model's own licence is on its card above.")
    texts = [source(f"licences/{licence}.txt") for licence in dict.fromkeys(licence for *_, licence in owners)]
    shown = [f"<p>{escape(line)}</p>" for line in lines] + [f"<pre>{escape(text)}</pre>" for text in texts]
    folded = [
        f"<details><summary>{escape(found.title)}</summary><pre>{escape(found.text)}</pre></details>"
        for found in notices_of(packages)
    ]
    return "".join(shown + folded)
