"""The engines' JavaScript, as npm installs it: where it is, which versions, under which licences."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes.web.engines import ENGINES

VARIABLE = "VIT_DEPLOY_WEB"


@dataclass(frozen=True)
class Package:
    """An npm package that is installed.

    Args:
        name: the name on npm.
        version: its version.
        licence: its licence as it declares it.
        folder: where its files are, all links followed.
    """

    name: str
    version: str
    licence: str
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "version": self.version, "licence": self.licence}


def packages_for(format: str, requested: str | Path | None = None) -> tuple[Package, ...]:
    """The packages that run files of a format.

    Args:
        format: of the files.
        requested: a folder `node_modules`, or one that holds it; None takes the one that `VIT_DEPLOY_WEB` names.

    Raises:
        MissingEngineError: no folder is named, or a package is not in it.
    """
    names = ENGINES[format].packages
    install = f"npm install {' '.join(names)}"
    given = requested or os.environ.get(VARIABLE)
    if not given:
        raise MissingEngineError(
            f"running models in a browser needs the JavaScript of {names[0]}, and no folder is named that has it",
            fix=f"{install}, and name node_modules with --runtime-files or in {VARIABLE}",
        )
    packages = {name: _package(Path(given), name, names[0]) for name in names}
    if absent := [name for name, package in packages.items() if package is None]:
        raise MissingEngineError(
            f"running models in a browser needs {' and '.join(absent)}, which {given} does not have",
            fix=f"{install}, and name its node_modules with --runtime-files or in {VARIABLE}",
        )
    return tuple(package for package in packages.values() if package is not None)


def _package(given: Path, name: str, engine: str) -> Package | None:
    """A package, where npm or yarn put it, or beside the engine, where pnpm puts what only that one needs."""
    roots = [given, given / "node_modules"]
    beside = [(root / engine).resolve().parents[engine.count("/")] for root in roots]
    for folder in (root / name for root in (*roots, *beside)):
        try:
            facts = json.loads((folder / "package.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(facts, dict) and facts.get("name") == name:
            said = str(facts.get("license", "not declared"))
            return Package(name, str(facts.get("version", "unknown")), said, folder.resolve())
    return None
