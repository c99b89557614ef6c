"""Browsers as the runtime of ONNX and TFLite artifacts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.provider_trials import doubling
from vit_deploy.runtimes.web.browsers import find_browser
from vit_deploy.runtimes.web.engines import ENGINES, WASM, WEBGPU, refuse_halves, refuse_impossible
from vit_deploy.runtimes.web.facts import browser_in, provider_on
from vit_deploy.runtimes.web.packages import Package, packages_for
from vit_deploy.runtimes.web.page import ANSWER_S, Launch, open_page
from vit_deploy.runtimes.web.process import BrowserProcess
from vit_deploy.runtimes.web.session import WebSession


class Web:
    """A browser without a window, one for each session, and the engine's JavaScript from the user's own npm.

    Its providers are `wasm` and `webgpu`. Where a WebGPU adapter is software, a session's provider says so, as
    `webgpu-swiftshader` does: good for verdicts, and not for times.

    Args:
        timeout_s: the limit in seconds for each answer of the page.
        launch: starts browsers.
    """

    def __init__(self, timeout_s: float = ANSWER_S, launch: Launch = BrowserProcess) -> None:
        self._timeout_s, self._launch = timeout_s, launch

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[WebSession]:
        """Load an artifact.

        Raises:
            MissingEngineError: there is no browser, or no JavaScript.
            EngineError: a file or a provider that cannot work in a browser, or that the engine refuses.
        """
        asked = options.provider or WASM
        refuse_impossible(artifact, asked)
        packages = packages_for(artifact.format, options.runtime_files)
        title, script = ENGINES[artifact.format].title, ENGINES[artifact.format].scripts[asked]
        if not (packages[0].folder / script).is_file():
            raise EngineError(
                f"{packages[0].name} {packages[0].version} has no {script}",
                fix=f"install a version that has it: npm install {packages[0].name}@latest",
            )
        browser = find_browser(options.browser)
        models = model_files(artifact)
        folders = {package.name: package.folder for package in packages}
        with open_page(
            browser, folders, models, webgpu=asked == WEBGPU, timeout_s=self._timeout_s, launch=self._launch
        ) as page:
            seen, _ = page.ask("look", "say what it is", webgpu=asked == WEBGPU)
            if not seen["isolated"]:
                raise EngineError(
                    f"{browser.path} does not keep the page apart from others, and then has neither threads nor an "
                    "exact clock for it",
                    fix="name a newer one with --browser",
                )
            provider = _provider(asked, seen, browser.path)
            adapter = seen["adapter"] or {}
            refuse_halves(artifact, asked, has_f16=adapter.get("f16", False), adapter=adapter.get("name", ""))
            page.ask(
                "start",
                f"start {title}",
                body=bytes(doubling()),
                fix=f"install it anew (npm install {' '.join(folders)}), or try another runtime or provider",
                format=artifact.format,
                script=f"npm/{packages[0].name}/{script}",
                provider=asked,
                threads=options.threads,
            )
            resting_mb = page.process.memory_mb()
            model, *data = models
            opened, _ = page.ask(
                "open",
                f"load {artifact.model_path}",
                model=model,
                data=data,
                input=artifact.input.name,
                signature=artifact.signature,
            )
            engine = _engine(packages, seen)
            notes = [_in_words(engine)]
            if asked == WEBGPU and opened.get("delegated") is False:
                notes.append("LiteRT.js computes a part of the graph in WebAssembly")
            yield WebSession(
                page, artifact, opened, provider=provider, engine=engine, notes=notes, resting_mb=resting_mb
            )


def model_files(artifact: Artifact) -> dict[str, Path]:
    """The files that a page may read of an artifact, by name, the model first and then those that hold its weights."""
    files = {artifact.model_path.name: artifact.model_path}
    beside = FORMATS[artifact.format].files_beside
    if beside is not None:
        found, _ = beside.load()(artifact.model_path)
        files |= {path.relative_to(artifact.model_path.parent).as_posix(): path for path in found}
    return files


def _provider(asked: str, seen: Mapping[str, Any], browser: str) -> str:
    """What really executes: the requested provider, with the name of an adapter that is software.

    Raises:
        EngineError: there is no adapter.
    """
    if asked != WEBGPU:
        return asked
    if seen["adapter"] is None:
        raise EngineError(f"{browser} has no WebGPU adapter", fix="add --provider wasm, or name another with --browser")
    return provider_on(seen["adapter"])


def _engine(packages: tuple[Package, ...], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What ran a model: the browser, its adapter, and the packages with their licences."""
    adapter = {} if seen["adapter"] is None else {"adapter": seen["adapter"]["name"]}
    return {"browser": browser_in(seen), **adapter, "packages": [package.to_dict() for package in packages]}


def _in_words(engine: Mapping[str, Any]) -> str:
    packages = [f"{package['name']} {package['version']} ({package['licence']})" for package in engine["packages"]]
    on = [f"adapter {engine['adapter']}"] if "adapter" in engine else []
    return ", ".join([engine["browser"], *packages, *on])
