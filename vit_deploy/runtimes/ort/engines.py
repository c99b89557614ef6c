"""Sessions of TensorRT's provider whose engine is built once for a GPU, and apart from loading it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.rounding import rounds
from vit_deploy.runtimes.ort.sessions import OnnxDeviceSession
from vit_deploy.runtimes.ort.tensorrt import FLAGS, EngineCache, Range, cache_of, facts_of, range_of
from vit_deploy.runtimes.values import blank_images

Opener = Callable[[Mapping[str, str], int | None], AbstractContextManager[OnnxDeviceSession]]
"""Opens a session, given more options of the provider and the most images that its engine takes in a call."""

IN_PARTS = (
    "TensorRT takes the model in parts, so it builds engines again where a batch is larger or smaller than before"
)


@contextlib.contextmanager
def opened_with_engine(
    artifact: Artifact, options: RuntimeOptions, version: str, opener: Opener
) -> Iterator[OnnxDeviceSession]:
    """A session whose engine is built before, in a session of its own, where none is kept.

    Args:
        artifact: the artifact to load.
        options: the requested options.
        version: the version of ONNX Runtime.
        opener: opens a session.
    """
    flags = FLAGS.get(artifact.precision, {})
    facts = {**facts_of(options.device), "onnxruntime": version, "flags": flags, "tf32": rounds()}
    facts["graph"] = options.cuda_graph
    asked = range_of(artifact.input, options.largest_batch)
    spans = [asked] if asked is None else [asked, None]
    caches = {span: cache_of(artifact, {**facts, "range": span and [span.most, span.usual]}) for span in spans}
    with contextlib.ExitStack() as stack:
        notes: tuple[str, ...] = ()
        build_ns = 0
        if filled := [span for span in spans if caches[span].filled]:
            span, folder = filled[0], caches[filled[0]].folder
        else:
            start = time.perf_counter_ns()
            span, folder, notes = _built(artifact, options, caches, flags, opener, stack)
            build_ns = time.perf_counter_ns() - start
        session = stack.enter_context(_opened(artifact, caches[span], folder, span, flags, opener))
        session.build_ns = build_ns
        if span is None and artifact.input.batch is None:
            notes = (*notes, IN_PARTS)
        session.notes = (*session.notes, *notes)
        yield session


def _built(
    artifact: Artifact,
    options: RuntimeOptions,
    caches: Mapping[Range | None, EngineCache],
    flags: Mapping[str, str],
    opener: Opener,
    stack: contextlib.ExitStack,
) -> tuple[Range | None, Path, tuple[str, ...]]:
    """For which batches engines were built, where they lie, and what there is to say of it."""
    for span, cache in caches.items():
        folder, notes = _new_folder(cache)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            with _opened(artifact, cache, folder, span, flags, opener) as session:
                session.infer(blank_images(artifact, options.largest_batch))
        except EngineError as error:
            # Shapes are given for the input of the model alone, which is too few where it is taken in parts.
            if span is None or "profile" not in f"{error} {error.__cause__}".lower():
                raise
        else:
            return span, folder if notes else cache.keep(folder), notes
    raise AssertionError("the last of the ranges returns or raises")


def _new_folder(cache: EngineCache) -> tuple[Path, tuple[str, ...]]:
    try:
        return cache.new_folder(), ()
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="vit-deploy-engines-"))
        return folder, (f"the engine is built at each start, for {cache.folder.parent} cannot be written: {error}",)


@contextlib.contextmanager
def _opened(
    artifact: Artifact, cache: EngineCache, folder: Path, span: Range | None, flags: Mapping[str, str], opener: Opener
) -> Iterator[OnnxDeviceSession]:
    shapes = {} if span is None else span.shapes(artifact.input)
    with opener({**flags, **cache.options(folder), **shapes}, None if span is None else span.most) as session:
        yield session
