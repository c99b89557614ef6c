"""The adapter of a base model: in a folder that is given, in a file beside it, or inside its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.adapters.config import FILE, MERGE
from vit_deploy.checkpoints.adapters.merging import merge, unwrapped
from vit_deploy.checkpoints.adapters.names import WRAPPED
from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, parse_json
from vit_deploy.checkpoints.folder import ADAPTERS
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.errors import CheckpointError

# What an adapter inside a model leaves in the names of its tensors.
TRACES = re.compile(r"\.base_layer\.|\.lora_|\.original_module\.|\.modules_to_save\.|\.(hada|lokr|oft|boft|vera|ia3)_")

Opener = Callable[[Path], AbstractContextManager[TensorFile]]


@contextmanager
def adapted(file: TensorFile, given: object, opener: Opener) -> Iterator[TensorFile]:
    """The file with the adapter merged: that of a folder, that beside the file, or that inside it; or the file itself.

    Args:
        file: the base model.
        given: folder of an adapter, or None.
        opener: opens one file.

    Raises:
        CheckpointError: no adapter in the folder, one of another kind or for another model, or traces of one in the
            names of the file and nothing that says how it is merged.
    """
    inside = [name for name in file.names() if TRACES.search(name)]
    config = file.documents.get(FILE)
    if inside and all(WRAPPED.match(name) for name in file.names()) and not _wraps(inside):
        named = config.get("base_model_name_or_path") if isinstance(config, Mapping) else None
        raise CheckpointError(
            f"it is an adapter, without its base model{f' {named}' if named else ''}",
            fix="give the base model, and the adapter's folder with --adapter FOLDER",
        )
    if given is not None:
        if not isinstance(given, str | Path):
            raise CheckpointError(f"adapter is {given!r}; expected a folder", fix="give the folder that PEFT has saved")
        if inside:
            raise CheckpointError(
                f"an adapter is given, and the file holds one already ({inside[0]})", fix="leave --adapter out"
            )
        folder = Path(given)
        with opener(adapter_weights(folder)) as adapter:
            yield merge(file, adapter, _read_config(folder), folder.name)
        return
    if inside:
        if not isinstance(config, Mapping) or not _wraps(inside):
            raise CheckpointError(
                f"it holds an adapter that is not merged ({inside[0]}), and no {FILE} of PEFT's that says how",
                fix=MERGE,
            )
        yield unwrapped(file, config)
        return
    beside = next((path for name in ADAPTERS if (path := file.path.parent / name).is_file()), None)
    if beside is None:
        yield file
        return
    if not isinstance(config, Mapping):
        raise CheckpointError(
            f"an adapter lies beside it ({beside.name}), and no {FILE} that says how it is merged",
            fix=f"put the {FILE} there that was saved with it, or take the adapter out of the folder",
        )
    with opener(beside) as adapter:
        yield merge(file, adapter, config, beside.name)


def _wraps(names: Iterable[str]) -> bool:
    """Whether these are names of a model with its layers inside an adapter's."""
    return any(".base_layer." in name for name in names)


def adapter_weights(folder: Path) -> Path:
    """The file of an adapter's matrices in its folder.

    Raises:
        CheckpointError: there is none.
    """
    found = next((path for name in ADAPTERS if (path := folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(
            f"{folder} holds no adapter: neither {' nor '.join(ADAPTERS)}", fix="give the folder that PEFT has saved"
        )
    return found


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / FILE
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes", fix="get the file again")
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}", fix="get the adapter's folder again") from error
