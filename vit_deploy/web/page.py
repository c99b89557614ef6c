"""A page that runs models: one file that holds all of it, or a folder for larger ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from vit_deploy import __version__
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.origin import origin_in
from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes.web.packages import Package, packages_for
from vit_deploy.web.models import FORMAT, Content, Model
from vit_deploy.web.scripts import joined, source

SCRIPTS = ("preprocess.mjs", "png.mjs", "images.mjs", "proof.mjs", "maps.mjs", "engine.mjs", "demo.mjs")
RUNTIME = {"runtime-script": "ort.wasm.bundle.min.mjs", "runtime-wasm": "ort-wasm-simd-threaded.wasm"}
INDEX = "index.html"
PLACE = re.compile(r"\{\{(\w+)\}\}")


def runtime_contents(requested: Path | None = None) -> tuple[list[Content], Package]:
    """The files of ONNX Runtime Web, and the package that they are from.

    Args:
        requested: `node_modules`, or the folder that holds it; None takes that of the environment.

    Raises:
        MissingEngineError: the package or one of its files is not there.
    """
    [package] = packages_for(FORMAT, requested)
    contents = []
    for name, file in RUNTIME.items():
        path = package.folder / "dist" / file
        if not path.is_file():
            raise MissingEngineError(
                f"{package.name} {package.version} in {package.folder} has no dist/{file}",
                fix=f"npm install {package.name}@latest",
            )
        contents.append(Content(name, path.read_bytes(), f"runtime/{file}"))
    return contents, package


def one_file(models: Sequence[Model], runtime: Sequence[Content], package: Package, title: str) -> str:
    """The text of a page that needs no other file and no network."""
    contents = [*runtime, *(content for model in models for content in model.contents)]
    return _page(models, contents, {}, package, title, beside=False)


def folder_files(models: Sequence[Model], runtime: Sequence[Content], package: Package, title: str) -> dict[str, bytes]:
    """The files of a page that is to be served, by their paths: large contents lie beside it."""
    contents = [*runtime, *(content for model in models for content in model.contents)]
    beside = {content.name: content for content in contents if content.file}
    held = [content for content in contents if not content.file]
    text = _page(models, held, beside, package, title, beside=True)
    return {INDEX: text.encode(), **{content.file: content.data for content in beside.values()}}


def _page(
    models: Sequence[Model],
    held: Sequence[Content],
    files: dict[str, Content],
    package: Package,
    title: str,
    *,
    beside: bool,
) -> str:
    facts = {
        "models": [model.facts for model in models],
        "files": {name: {"file": content.file, "bytes": len(content.data)} for name, content in files.items()},
    }
    style, script = source("demo.css"), joined(*SCRIPTS)
    connect = " connect-src 'self';" if beside else ""
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}' blob: 'wasm-unsafe-eval'; style-src '{_digest(style)}';"
        f"{connect} img-src blob:; media-src blob:; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "title": escape(title),
        "style": style,
        "script": script,
        "made": f"Made by vit-deploy {__version__} with {package.name} {package.version}.",
        "notices": _notices(package),
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


def _notices(package: Package) -> str:
    parts = [
        (f"{package.name} {package.version}, {package.licence} licence", "Copyright (c) Microsoft Corporation", "MIT"),
        (f"vit-deploy {__version__}, Apache-2.0 licence: preprocessing and the page itself", "", "Apache-2.0"),
    ]
    shown = [
        f"<h3>{escape(heading)}</h3><pre>{escape(owner)}\n\n{escape(source(f'licences/{name}.txt'))}</pre>"
        for heading, owner, name in parts
    ]
    more = (
        "ONNX Runtime holds code of others; their notices are in ThirdPartyNotices.txt of its repository, "
        "github.com/microsoft/onnxruntime. A model's own licence is on its card above."
    )
    return "".join(shown) + f"<p>{more}</p>"


def page_bytes(models: Sequence[Model], runtime: Sequence[Content]) -> int:
    """How many bytes one page would have to hold, before they are packed."""
    return sum(len(content.data) for content in (*runtime, *(part for model in models for part in model.contents)))


def title_of(artifacts: Sequence[Artifact]) -> str:
    """A heading for a page of these models, where none is given."""
    origins = [origin_in(artifact.provenance) for artifact in artifacts]
    names = dict.fromkeys(origin.repository.rpartition("/")[2] for origin in origins if origin and origin.repository)
    return " and ".join(names) or "Vision Transformer"
