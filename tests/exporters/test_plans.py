"""TensorRT plans as an export makes them: TensorRT for RTX builds without a GPU, what proves them is a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import vit_deploy
from tests.runtimes.fake_cuda import FakeCuda
from tests.runtimes.fake_tensorrt import install
from vit_deploy.cli import run
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, read_artifact, sha256
from vit_deploy.core.options.tensorrt import BatchRange
from vit_deploy.errors import ArtifactError, ConfigError, EngineError, MissingEngineError
from vit_deploy.exporters import PlanOptions
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.compiled import export
from vit_deploy.formats.inspect import inspect
from vit_deploy.formats.tensorrt_plan import PlanRecord
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.verifying import verify

QUIETLY = QuantizeOptions(measure_speed=False)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("VIT_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_gpu(monkeypatch):
    """A driver that sees none, on whatever machine this runs."""
    monkeypatch.setattr("vit_deploy.runtimes.cuda.memory.open_library", lambda: FakeCuda(gpus=()))


@pytest.fixture
def cuda(monkeypatch):
    """A machine with a GPU and TensorRT."""
    cuda = FakeCuda()
    install(monkeypatch, cuda)
    return cuda


def jobs_of(*precisions, formats=("tensorrt",), **options):
    return plan(formats, precisions, **options)[0]


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("cache"))


@pytest.fixture(scope="module")
def unproven(make_checkpoint, tmp_path_factory):
    """Artifacts of plans that TensorRT for RTX really built, by precision."""
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("unproven")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vit_deploy.runtimes.cuda.memory.open_library", lambda: FakeCuda(gpus=()))
        asked = PlanOptions(unproven=True, batches=BatchRange(1, 2, 4))
        made = export(make_checkpoint(), folder, jobs_of(*FORMATS["tensorrt"].every_precision), QUIETLY, plans=asked)
    assert [result.parity.verdict for result in made.results] == ["unproven"] * len(FORMATS["tensorrt"].every_precision)
    assert not made.facts and not made.skipped
    return {result.artifact.precision: result.artifact.directory for result in made.results}


def test_tensorrt_for_rtx_builds_every_precision_that_there_is(unproven):
    assert {"fp32", "fp16", "int8-static"} <= set(unproven)
    assert names(unproven["fp32"].parent) == sorted(f"tensorrt-{each}.unproven" for each in unproven)
    for precision, folder in unproven.items():
        assert names(folder) == [MANIFEST, "golden.npz", "model.plan"]
        assert read_artifact(folder).precision == precision
        assert (folder / "model.plan").read_bytes()[:4] == b"vtrt"


def test_the_manifest_says_what_a_plan_was_built_with_and_for(unproven, schema):
    import tensorrt_rtx

    record = PlanRecord.of(read_artifact(unproven["fp32"]))
    assert (record.flavour, record.version) == ("tensorrt_rtx", tensorrt_rtx.__version__)
    assert record.batches == BatchRange(1, 2, 4) and not record.tf32 and record.gpu is None
    assert record.compute_capabilities[0] == "8.0" and record.build_ms > 0
    assert "7.5" in PlanRecord.of(read_artifact(unproven["fp16"])).compute_capabilities  # which has no fp32 products
    for folder in unproven.values():
        real = json.loads((folder / MANIFEST).read_text())
        jsonschema.Draft202012Validator(schema).validate(real)
        assert real["options"]["tensorrt"]["strongly_typed"] is True and real["options"]["opset"] == 20
        assert real["producer"]["tensorrt_rtx"] == tensorrt_rtx.__version__ and "onnx" in real["producer"]
        assert real["input"]["shape"] == [None, 24, 32, 3]


@pytest.fixture(scope="module")
def schema():
    return json.loads((Path(vit_deploy.__file__).parent / "core" / "artifact.schema.json").read_text())


def test_a_fixed_batch_needs_no_range(no_gpu, make_checkpoint, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    asked = PlanOptions(unproven=True)
    (job,) = jobs_of("fp32", batch="3", layout="nchw", include_preprocessing=True)
    (result,) = export(make_checkpoint(), tmp_path / "out", [job], QUIETLY, plans=asked).results
    back = read_artifact(result.artifact.directory)
    assert PlanRecord.of(back).batches == BatchRange(3, 3, 3)
    assert back.input.shape == (3, 3, 24, 32) and back.input.dtype == "uint8"
    assert read_golden(back).images.dtype == np.uint8


def test_without_a_gpu_it_is_refused_before_any_work(no_gpu, make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "vit_deploy.exporters.quantization.pipeline.export", lambda *given, **more: pytest.fail("the work began")
    )
    with pytest.raises(EngineError) as caught:
        export(make_checkpoint(), tmp_path / "out", jobs_of("fp32", formats=("onnx", "tensorrt")), QUIETLY)
    assert caught.value.message.startswith("there is no GPU to prove the plan on: there is no NVIDIA GPU")
    assert "--unproven" in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_it_too_and_names_no_format_by_itself(no_gpu, tmp_path, capsys):
    asked = ["export", "pico", "--image-size", "32x48", "-o", str(tmp_path / "out"), "--format", "tensorrt"]
    assert run(asked) == 2
    assert "there is no GPU to prove the plan on" in capsys.readouterr().err
    assert run([*asked, "--tensorrt", "full", "--unproven"]) == 2
    assert "tensorrt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


WRONG = {
    "--unproven: for TensorRT plans alone": ["--format", "onnx", "--unproven"],
    "--tensorrt, --batch-range, --allow-tf32: for TensorRT plans alone": [
        *("--tensorrt", "rtx", "--batch-range", "1,2,3", "--allow-tf32")
    ],
    "--tensorrt is 'lite'; expected full or rtx": ["--format", "tensorrt", "--tensorrt", "lite"],
    "the batch is either a range or fixed": ["--format", "tensorrt", "--batch", "2", "--batch-range", "1,2,3"],
    "--batch-range is '1,2'; expected the least": ["--format", "tensorrt", "--batch-range", "1,2"],
    "the batches of a plan are 3, 2, 4": ["--format", "tensorrt", "--batch-range", "3,2,4"],
    "--batch-range is 'a'": ["--format", "tensorrt", "--batch-range", "a,2,4"],
    "tensorrt has none of the precisions int4": ["--format", "tensorrt", "-p", "int4"],
}


@pytest.mark.parametrize("message", WRONG)
def test_options_that_cannot_be_are_refused(message, tmp_path, capsys, no_gpu):
    assert run(["export", "pico", "-o", str(tmp_path / "out"), *WRONG[message]]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_unproven_is_published_under_another_name_and_exits_with_1(no_gpu, tmp_path, capfd):
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "out" / "tensorrt-fp32").mkdir(parents=True)  # a proven one, which stays
    asked = ["export", "pico", "--image-size", "32x48", "-o", str(tmp_path / "out"), "--format", "tensorrt"]
    assert run([*asked, "--unproven", "--json"]) == 1
    said = capfd.readouterr()
    document = json.loads(said.out)
    (result,) = document["results"]
    assert not document["ok"] and result["parity"]["verdict"] == "unproven"
    assert result["path"] == str(tmp_path / "out" / "tensorrt-fp32.unproven")
    assert result["tensorrt"]["build_ms"] > 0 and result["tensorrt"]["profile"] == {"min": 1, "opt": 8, "max": 32}
    assert names(tmp_path / "out") == ["tensorrt-fp32", "tensorrt-fp32.unproven"]
    assert "tensorrt-fp32 is not proven and is published as" in said.err
    assert run([*asked, "--unproven"]) == 2
    assert "already there" in capfd.readouterr().err


def test_on_a_gpu_a_plan_is_proven_like_anything_else(cuda, cache, make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    jobs = jobs_of("fp32", "fp16", formats=("onnx", "tensorrt"), target="tensorrt")
    made = export(checkpoint, tmp_path / "out", jobs, QUIETLY)
    assert [result.artifact.name for result in made.results] == [
        *("onnx-fp32", "onnx-fp16", "tensorrt-fp32", "tensorrt-fp16")
    ]
    assert all(result.parity.ok and result.published for result in made.results)
    plain, built = (read_artifact(tmp_path / "out" / name) for name in ("onnx-fp32", "tensorrt-fp32"))
    assert built.parent == sha256(plain.directory / MANIFEST) and built.weights_digest == checkpoint.digest()
    record = PlanRecord.of(built)
    assert (record.flavour, record.version) == ("tensorrt", "10.13.2.6")
    assert (record.gpu, record.compute_capabilities, record.cuda) == ("NVIDIA Test 9000", ("9.0",), "13.0")
    assert record.batches == BatchRange(1, 8, 32) and not record.tf32
    assert any("built by TensorRT 10.13.2.6" in note and "NVIDIA Test 9000" in note for note in made.notes)
    assert verify(built).parity == made.results[2].parity
    (kept,) = (cache / "tensorrt-plans").iterdir()
    assert kept.read_bytes() == b"timed;timed;"  # the second build began with what the first one had timed


def test_what_a_plan_is_made_of_is_dropped_where_nobody_asked_for_it(cuda, make_checkpoint, tmp_path):
    (result,) = export(make_checkpoint(), tmp_path / "out", jobs_of("int8-static"), QUIETLY).results
    assert result.parity.ok and names(tmp_path / "out") == ["tensorrt-int8-static"]
    assert result.artifact.options["recipe"]["precision"] == "int8-static"


def test_tf32_is_off_unless_it_is_asked_for_and_then_has_its_own_tolerance(cuda, make_checkpoint, tmp_path):
    asked = PlanOptions(allow_tf32=True)
    (result,) = export(make_checkpoint(), tmp_path / "out", jobs_of("fp32"), QUIETLY, plans=asked).results
    built = read_artifact(result.artifact.directory)
    assert PlanRecord.of(built).tf32 and b'"tf32": true' in built.model_path.read_bytes()[:40]
    strict = verify(read_artifact(export_one(make_checkpoint(), tmp_path / "strict"))).parity
    assert (strict.tolerance.max_abs or 0) < (result.parity.tolerance.max_abs or np.inf)
    with pytest.raises(EngineError, match=r"was built with TF32 allowed, .* this run allows none"):
        verify(built)


def export_one(checkpoint, folder, **plans):
    (result,) = export(checkpoint, folder, jobs_of("fp32"), QUIETLY, plans=PlanOptions(**plans)).results
    return result.artifact.directory


def test_a_plan_that_answers_otherwise_is_not_published(cuda, make_checkpoint, tmp_path, monkeypatch):
    from tests.runtimes import fake_tensorrt

    whole = fake_tensorrt.Context.execute_async_v3

    def twice(self, stream):
        self.addresses = dict(self.addresses)
        done = whole(self, stream)
        address = self.addresses["logits"]
        cuda.enqueue(stream, lambda: cuda.write(address, bytes(len(cuda.allocated[address]))))
        return done

    monkeypatch.setattr(fake_tensorrt.Context, "execute_async_v3", twice)
    (result,) = export(make_checkpoint(), tmp_path / "out", jobs_of("fp32"), QUIETLY).results
    assert not result.parity.ok and not result.published
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


def test_tensorrt_is_taken_where_it_and_a_gpu_are_and_for_rtx_its_gpus_are_asked_for(cuda, make_checkpoint, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineError) as caught:
        export_one(make_checkpoint(), tmp_path / "out", flavour="tensorrt_rtx")
    assert "runs on GPUs of compute capability 7.5, 8.0" in caught.value.message
    assert "this is NVIDIA Test 9000 (compute capability 9.0)" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_graph_that_tensorrt_refuses_is_told_with_its_words(cuda, make_checkpoint, tmp_path, monkeypatch):
    from tests.runtimes import fake_tensorrt

    def refuse(self, network, config):
        self.logger.log(fake_tensorrt.ILogger.Severity.ERROR, "no kernel\n for  Gelu")

    monkeypatch.setattr(fake_tensorrt.Builder, "build_serialized_network", refuse)
    with pytest.raises(EngineError, match=r"TensorRT 10.13.2.6 cannot build a plan of .*: no kernel for Gelu"):
        export_one(make_checkpoint(), tmp_path / "out")
    assert not (tmp_path / "out").exists() or names(tmp_path / "out") == []


def test_a_missing_tensorrt_is_told_with_its_extra(cuda, monkeypatch, make_checkpoint, tmp_path):
    monkeypatch.setattr("vit_deploy.runtimes.tensorrt.engine.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingEngineError) as caught:
        export_one(make_checkpoint(), tmp_path, flavour="tensorrt_rtx")
    assert caught.value.fix == 'pip install "vit-deploy[tensorrt-rtx]"'


def test_inspect_says_what_a_plan_is_without_loading_it(unproven, tmp_path, capsys):
    import tensorrt_rtx

    found = inspect(unproven["fp32"])
    assert found.format == "tensorrt" and found.graph is not None
    assert found.graph.facts["built by"] == f"TensorRT for RTX {tensorrt_rtx.__version__}"
    assert found.graph.facts["batches"] == "1 to 4, best 2"
    assert str(found.graph.inputs[0]) == "images float32 (?, 24, 32, 3)"
    assert run(["inspect", str(unproven["fp32"])]) == 0
    assert "runs on" in (said := capsys.readouterr().out) and "operators" not in said
    bare = tmp_path / "somewhere.plan"
    shutil.copy(unproven["fp32"] / "model.plan", bare)
    alone = inspect(bare)
    assert alone.artifact is None and alone.graph is not None
    assert alone.graph.facts["built by"] == f"TensorRT for RTX {tensorrt_rtx.__version__}"
    assert "no room for config" in alone.notes[0]


def test_a_bare_plan_is_refused_with_what_it_lacks(unproven, tmp_path, capsys):
    bare = shutil.copy(unproven["fp32"] / "model.plan", tmp_path / "model.plan")
    for command in (["verify"], ["bench"]):
        assert run([*command, str(bare)]) == 2
        assert "is a TensorRT plan, which has no room for what it takes" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="is a TensorRT plan"):
        read_artifact(bare)


def test_a_plan_is_not_quantized_nor_looked_into(unproven, tmp_path, capsys):
    from vit_deploy.verification.locate.divergence import locate

    assert run(["quantize", str(unproven["fp32"]), "-p", "fp16", "-o", str(tmp_path / "out")]) == 2
    assert "holds a tensorrt file, which is compiled" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"cannot look into .*model.plan: it is run as a whole"):
        locate(read_artifact(unproven["fp32"]))


def test_a_manifest_that_does_not_say_how_a_plan_was_built_is_damaged(unproven, tmp_path):
    folder = shutil.copytree(unproven["fp32"], tmp_path / "bundle")
    values = json.loads((folder / MANIFEST).read_text())
    for wrong in ({}, None, {**values["options"]["tensorrt"], "profile": {"min": 2, "opt": 1, "max": 3}}):
        values["options"]["tensorrt"] = wrong
        (folder / MANIFEST).write_text(json.dumps(values))
        with pytest.raises(ArtifactError, match="does not say how the plan was built"):
            PlanRecord.of(read_artifact(folder))
    values["options"] = {}
    (folder / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="expected what the plan was built with"):
        inspect(folder)


def test_compare_leaves_the_weights_of_a_plan_out_and_says_so(cuda, make_checkpoint, tmp_path):
    from vit_deploy.verification.compare import compare_models

    export(make_checkpoint(), tmp_path / "out", jobs_of("fp32", formats=("onnx", "tensorrt")), QUIETLY)
    found = compare_models(tmp_path / "out" / "onnx-fp32", tmp_path / "out" / "tensorrt-fp32")
    assert found.weights_compared is None and found.outputs is not None and found.outputs.ok
    assert any("weights inside a TensorRT plan cannot be read" in note for note in found.notes)


def test_the_python_api_makes_plans_too(cuda, make_checkpoint, tmp_path):
    (bundle,) = vit_deploy.export(make_checkpoint(), tmp_path / "out", formats=["tensorrt"])
    assert bundle.format == "tensorrt"
    with vit_deploy.session(bundle) as session:
        assert session.provider == "tensorrt"


def test_triton_serves_a_plan_of_tensorrt_within_its_batches(cuda, unproven, make_checkpoint, tmp_path):
    from vit_deploy.exporters.tensorrt.triton import write_model

    asked = PlanOptions(batches=BatchRange(1, 2, 4))
    (made,) = export(make_checkpoint(), tmp_path / "out", jobs_of("int8-static"), QUIETLY, plans=asked).results
    write_model(made.artifact, tmp_path / "models" / "vit")
    text = (tmp_path / "models" / "vit" / "config.pbtxt").read_text()
    assert 'platform: "tensorrt_plan"' in text and "kind: KIND_GPU" in text and "max_batch_size: 4" in text
    (served,) = (tmp_path / "models" / "vit" / "1").iterdir()
    assert served.read_bytes() == made.artifact.model_path.read_bytes()
    with pytest.raises(ConfigError, match=r"Triton loads plans of TensorRT, and .* was built by TensorRT for RTX"):
        write_model(read_artifact(unproven["fp32"]), tmp_path / "models" / "rtx")
    several = export_one(make_checkpoint(), tmp_path / "several", batches=BatchRange(2, 3, 4))
    with pytest.raises(ConfigError, match=r"may have one image, and .*model.plan takes at least 2"):
        write_model(read_artifact(several), tmp_path / "models" / "several")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["vit"]


def test_plans_are_built_of_the_graph_for_tensorrt_and_of_no_other(cuda, make_checkpoint, tmp_path):
    assert {job.options.target for job in jobs_of("fp32", "fp16")} == {"tensorrt"}
    assert jobs_of("fp32", target="tensorrt") == jobs_of("fp32")
    with pytest.raises(ConfigError, match="--for shape ONNX files, and the formats are tensorrt"):
        jobs_of("fp32", target="cuda")
    # Beside an ONNX file for CPUs, which is another graph, the one that the plan is made of is made and dropped.
    made = export(make_checkpoint(), tmp_path / "out", jobs_of("fp16", formats=("onnx", "tensorrt")), QUIETLY)
    assert [result.artifact.options.get("for", "cpu") for result in made.results] == ["cpu", "tensorrt"]
    assert names(tmp_path / "out") == ["onnx-fp16", "tensorrt-fp16"]
