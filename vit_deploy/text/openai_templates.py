"""The eighty templates that OpenAI published for ImageNet, read from the user's own OpenCLIP."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from vit_deploy.errors import EngineError, MissingEngineError

PACKAGE, DISTRIBUTION = "open_clip", "open_clip_torch"
FILE, NAME = "zero_shot_metadata.py", "OPENAI_IMAGENET_TEMPLATES"
COUNT = 80


def openai_templates() -> tuple[str, ...]:
    """Texts with `{}` for the name of a class, in OpenCLIP's order.

    Its file is read and not run, so that neither PyTorch nor what else OpenCLIP imports has to be installed.

    Raises:
        MissingEngineError: OpenCLIP is not installed.
        EngineError: its file holds no such list.
    """
    path = _path()
    if path is None:
        raise MissingEngineError(
            f"OpenAI's {COUNT} templates are read from OpenCLIP, which is not installed",
            fix=f"pip install --no-deps {DISTRIBUTION}, or give a file with one template a line",
        )
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise _unread(path, f"is damaged: {error}") from error
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign) and _names(node) == [NAME]]
    if not lists or not isinstance(lists[0], ast.Tuple | ast.List):
        raise _unread(path, f"has no list {NAME}")
    found = [_template(entry) for entry in lists[0].elts]
    templates = tuple(text for text in found if text is not None and text.count("{}") == 1)
    if len(found) != COUNT or len(templates) != COUNT:
        raise _unread(path, f"has {len(templates)} templates of {len(found)} in a known form, expected {COUNT}")
    return templates


def _path() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)


def _names(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


def _template(entry: ast.expr) -> str | None:
    """The text of `lambda c: f"a photo of {c}"`, or of a plain one; None of anything else."""
    match entry:
        case ast.Constant(value=str(text)):
            return text
        case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=name)]), body=ast.JoinedStr(values=parts)):
            texts = [_part(part, name) for part in parts]
            return None if None in texts else "".join(map(str, texts))
    return None


def _part(part: ast.expr, name: str) -> str | None:
    match part:
        case ast.Constant(value=str(text)):
            return text
        case ast.FormattedValue(value=ast.Name(id=read), conversion=-1, format_spec=None) if read == name:
            return "{}"
    return None


def _unread(path: Path, why: str) -> EngineError:
    return EngineError(
        f"OpenAI's {COUNT} templates cannot be read: {path} {why}",
        fix=f"pip install --no-deps --force-reinstall {DISTRIBUTION}, or give a file with one template a line",
    )
