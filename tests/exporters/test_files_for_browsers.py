"""Files for browsers are those for anything else, in what browsers run; what they cannot open is refused."""

from __future__ import annotations

import dataclasses

import pytest

import vit_deploy
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.exporters.browsers import refuse_unfit
from vit_deploy.exporters.open_or_many import Sizes
from vit_deploy.exporters.plan import plan, usual_formats
from vit_deploy.runtimes.web import engines
from vit_deploy.web.models import check_artifact


@pytest.fixture(scope="module")
def exported(make_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    return vit_deploy.export(make_checkpoint(), folder, target="web", precisions=["fp32", "int8-full"])


def test_the_usual_formats_are_those_that_browsers_run():
    assert usual_formats(["fp32"], "web") == ["onnx", "tflite"]


def test_precisions_without_kernels_there_are_skipped():
    jobs, skipped = plan(["onnx", "tflite"], ["int8", "int8-full", "int16x8"], target="web")
    assert [job.name for job in jobs] == ["onnx-int8", "tflite-int8", "tflite-int16x8"]
    assert {job.options.target for job in jobs} == {Target.WEB}
    assert skipped == [
        f"{name}: has no kernels in files for web" for name in ("onnx-int8-full", "onnx-int16x8", "tflite-int8-full")
    ]
    with pytest.raises(ConfigError, match="tflite for web has none of the precisions int8-full"):
        plan(["tflite"], ["int8-full"], target="web")
    with pytest.raises(ConfigError, match="the formats are savedmodel"):
        plan(["savedmodel"], ["fp32"], target="web")


@pytest.mark.parametrize(
    ("format", "sizes"), [("onnx", Sizes(is_dynamic=True)), ("tflite", Sizes(pixels=((16, 24), (24, 16))))]
)
def test_they_may_be_for_several_sizes(format, sizes):
    [job] = plan([format], ["fp32"], target="web", sizes=sizes)[0]
    assert job.options.dynamic_size == sizes.is_dynamic


def test_the_files_are_those_that_are_made_without_it(exported, make_checkpoint, tmp_path):
    assert [artifact.name for artifact in exported] == ["onnx-fp32", "tflite-fp32"]
    assert all(artifact.options["for"] == "web" for artifact in exported)
    assert exported.skipped == tuple(
        f"{name}-int8-full: has no kernels in files for web" for name in ("onnx", "tflite")
    )
    assert f"vit-deploy verify {exported[0].directory.parent} --runtime web" in exported.notes[-1]
    plain = vit_deploy.export(make_checkpoint(), tmp_path / "plain", formats=["onnx", "tflite"])
    for made, usual in zip(exported, plain, strict=True):
        assert made.model_path.read_bytes() == usual.model_path.read_bytes()
        check_artifact(made)  # a page takes it


def test_no_integers_of_8_bits_come_of_them_later(exported, tmp_path):
    with pytest.raises(ConfigError, match="tflite for web cannot be quantized to 'int8-full'"):
        vit_deploy.quantize(exported[1], tmp_path / "full", precisions=["int8-full"])
    assert not (tmp_path / "full").exists()


def test_what_no_browser_can_open_is_refused_and_not_left_behind(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "MOST_BYTES", 1000)
    with pytest.raises(EngineError, match=r"does not run in a browser on wasm: it has .* with its weights") as caught:
        vit_deploy.export(make_checkpoint(), tmp_path / "large", target="web", formats=["onnx"])
    assert str(tmp_path / "large" / "onnx-fp32" / "model.onnx") in caught.value.message
    assert not list((tmp_path / "large").glob("*"))


def test_files_for_anything_else_are_passed(exported, monkeypatch):
    monkeypatch.setattr(engines, "MOST_BYTES", 1000)
    refuse_unfit(dataclasses.replace(exported[0], options={}))
    with pytest.raises(EngineError):
        refuse_unfit(exported[0])


def test_every_precision_for_browsers_is_one_that_they_run(exported):
    for artifact in exported:
        for precision in FORMATS[artifact.format].precisions[Target.WEB]:
            engines.refuse_impossible(dataclasses.replace(artifact, precision=precision), engines.WASM)
