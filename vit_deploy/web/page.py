"""A page that runs models: one file that holds all of it, or a folder for larger ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from vit_deploy import __version__
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.origin import origin_in
from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes.web.packages import Package, packages_for
from vit_deploy.web.models import Content, Model
from vit_deploy.web.notices import CORE, ORT, UTILS, in_html
from vit_deploy.web.scripts import joined, source

SCRIPTS = ("preprocess.mjs", "png.mjs", "images.mjs", "proof.mjs", "maps.mjs", "engine.mjs", "demo.mjs")
# Of each format the parts of its engine: package, and file in it. LiteRT's are those that need no relaxed SIMD.
FILES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "onnx": {
        "script": (ORT, "dist/ort.wasm.bundle.min.mjs"),
        "wasm": (ORT, "dist/ort-wasm-simd-threaded.wasm"),
    },
    "tflite": {
        "script": (CORE, "dist/index.js"),
        "utils": (UTILS, "dist/index.js"),
        "loader": (CORE, "wasm/litert_wasm_compat_internal.js"),
        "wasm": (CORE, "wasm/litert_wasm_compat_internal.wasm"),
    },
}
INDEX = "index.html"
FOLDER = (INDEX, "models", "runtime")  # what a page in a folder holds
PLACE = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Engine:
    """What runs the models of one format in a page.

    Args:
        format: of the models.
        contents: its files.
        packages: that they are from.
    """

    format: str
    contents: tuple[Content, ...]
    packages: tuple[Package, ...]


def engine_for(format: str, requested: Path | None = None) -> Engine:
    """The engine of a format, from npm's files.

    Args:
        format: "onnx" or "tflite".
        requested: `node_modules`, or the folder that holds it; None takes that of the environment.

    Raises:
        MissingEngineError: a package or one of its files is not there.
    """
    packages = {package.name: package for package in packages_for(format, requested)}
    contents = []
    for part, (name, file) in FILES[format].items():
        package = packages[name]
        path = package.folder / file
        if not path.is_file():
            raise MissingEngineError(
                f"{name} {package.version} in {package.folder} has no {file}", fix=f"npm install {name}@latest"
            )
        contents.append(Content(f"{format}-{part}", path.read_bytes(), f"runtime/{path.name}"))
    return Engine(format, tuple(contents), tuple(packages.values()))


def one_file(models: Sequence[Model], engines: Sequence[Engine], title: str) -> str:
    """The text of a page that needs no other file and no network."""
    return _page(models, engines, all_contents(models, engines), {}, title)


def folder_files(models: Sequence[Model], engines: Sequence[Engine], title: str) -> dict[str, bytes]:
    """The files of a page that is to be served, by their paths: large contents lie beside it."""
    contents = all_contents(models, engines)
    beside = {content.name: content for content in contents if content.file}
    held = [content for content in contents if not content.file]
    text = _page(models, engines, held, beside, title)
    return {INDEX: text.encode(), **{content.file: content.data for content in beside.values()}}


def all_contents(models: Sequence[Model], engines: Sequence[Engine]) -> list[Content]:
    """Everything that a page has to have, whether it holds it or not."""
    of_engines = [content for engine in engines for content in engine.contents]
    return of_engines + [content for model in models for content in model.contents]


def _page(
    models: Sequence[Model],
    engines: Sequence[Engine],
    held: Sequence[Content],
    files: Mapping[str, Content],
    title: str,
) -> str:
    packages = [package for engine in engines for package in engine.packages]
    facts = {
        "models": [model.facts for model in models],
        "runtimes": {engine.format: [content.name for content in engine.contents] for engine in engines},
        "files": {name: {"file": content.file, "bytes": len(content.data)} for name, content in files.items()},
    }
    style, script = source("demo.css"), joined(*SCRIPTS)
    connect = " connect-src 'self';" if files else ""
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}' blob: 'wasm-unsafe-eval'; style-src '{_digest(style)}';"
        f"{connect} img-src blob:; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "title": escape(title),
        "style": style,
        "script": script,
        "made": escape(f"Made by vit-deploy {__version__} with {_named(packages)}."),
        "notices": in_html(packages),
        "payloads": "\n".join(map(_element, held)),
        # No text of a model may end the element, nor begin a comment in it.
        "facts": json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
    }
    return PLACE.sub(lambda found: values[found[1]], source("demo.html"))


def _element(content: Content) -> str:
    packed = base64.b64encode(gzip.compress(content.data, 6, mtime=0)).decode()
    return (
        f'<script type="application/octet-stream" id="payload-{escape(content.name)}" '
        f'data-bytes="{len(content.data)}">{packed}</script>'
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _named(packages: Sequence[Package]) -> str:
    return ", ".join(f"{package.name} {package.version}" for package in packages)


def title_of(artifacts: Sequence[Artifact]) -> str:
    """A heading for a page of these models, where none is given."""
    origins = [origin_in(artifact.provenance) for artifact in artifacts]
    names = dict.fromkeys(origin.repository.rpartition("/")[2] for origin in origins if origin and origin.repository)
    return " and ".join(names) or "Vision Transformer"
