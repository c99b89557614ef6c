"""An artifact is opened in one place, whoever runs it."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from tests.linear_bundle import write_bundle
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ConfigError, MissingEngineError
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions, open_session
from vit_deploy.verification.golden import read_golden

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return read_artifact(write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32"))


@pytest.mark.parametrize("runtime", [None, "onnxruntime"])
def test_a_session_answers_in_the_named_engine_or_the_usual_one(artifact, runtime):
    golden = read_golden(artifact)
    with open_session(artifact, runtime, RuntimeOptions(threads=1)) as session:
        assert np.allclose(session.infer(golden.images), golden.outputs, atol=1e-5)
        assert session.provider == "cpu"


def test_an_engine_that_does_not_take_the_format_is_not_opened(artifact):
    with (
        pytest.raises(ConfigError, match=r"keras does not run .*model\.onnx") as caught,
        open_session(artifact, "keras"),
    ):
        pass
    assert caught.value.fix == "take onnxruntime or openvino or qnn or web"


def test_an_engine_that_is_not_installed_is_named(artifact, monkeypatch):
    monkeypatch.setitem(RUNTIMES._plugins, "onnxruntime", Plugin("x:Y", extra="onnx", needs=("no_such_engine",)))
    with pytest.raises(MissingEngineError, match="no_such_engine"), open_session(artifact, "onnxruntime"):
        pass


def test_options_of_a_gpu_are_refused_where_none_executes_the_graph_and_what_was_loaded_is_freed(artifact):
    freed = []

    class OnCpu:
        provider, placement, notes = "cpu", {}, ()

        @contextlib.contextmanager
        def open(self, artifact, options):
            try:
                yield self
            finally:
                freed.append(options)

    with open_session(artifact, engine=OnCpu()) as session:
        assert session.provider == "cpu" and not freed
    assert len(freed) == 1
    for options in (RuntimeOptions(device=1), RuntimeOptions(cuda_graph=True)):
        with (
            pytest.raises(ConfigError, match=r"for GPUs, and .* runs on cpu"),
            open_session(artifact, options=options, engine=OnCpu()),
        ):
            pass
        assert freed[-1] == options


def test_no_other_module_opens_an_engine_but_the_one_that_times_it():
    """Those that look into a format while it runs have its engine at hand."""
    package = Path(vit_deploy.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "RUNTIMES.load":
                found.add(path.relative_to(package).as_posix())
    # The first two open nothing: one has a file compiled, the other asks whether a GPU can be used.
    assert found == {
        "exporters/npu/qnn.py",
        "exporters/proving.py",
        "performance/worker.py",
        "runtimes/__init__.py",
    }
