"""What happens around quantizers: the search for layers to keep in float, facts beside fp32, refusals, clean-up."""

from __future__ import annotations

import dataclasses
import errno
import json

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact, sha256
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ConfigError, DataError, EngineError, ExportError, OutputError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QUANTIZERS, QuantizeOptions, sensitivity
from vit_deploy.exporters.quantization.calibration import (
    CORRECTION_NOTE,
    COUNT,
    ROUNDING_NOTE,
    SAMPLES_WARNING,
    Calibration,
    read_calibration,
)
from vit_deploy.exporters.quantization.labelled import read_labelled
from vit_deploy.exporters.quantization.learned_ranges import notes_on_ranges
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.quantization.pipeline import export, quantize
from vit_deploy.exporters.quantization.recipes import Clipping, recipe_for
from vit_deploy.exporters.quantization.sensitivity import Budget, Sensitivity, Work, keep_fewest, measure_layers
from vit_deploy.exporters.quantization.tradeoffs import verdicts

QUIET = QuantizeOptions(measure_speed=False)


@pytest.fixture(scope="module")
def source(bundles):
    return read_artifact(bundles["tflite"])


def test_the_sensitivity_of_every_layer_is_measured_alone_saved_and_sorted(source, tmp_path):
    made = quantize(source, tmp_path, ["int4"], dataclasses.replace(QUIET, sensitivity=True))
    table = made.sensitivities["tflite-int4"]
    assert sorted(row.layer for row in table) == sorted(layer_names(source.config))
    assert [row.cosine for row in table] == sorted(row.cosine for row in table)
    assert table[0].cosine < table[-1].cosine <= 1 + 1e-9
    saved = json.loads((tmp_path / "tflite-int4" / "sensitivity.json").read_text())
    assert saved == [dataclasses.asdict(row) for row in table]
    assert "sensitivity.json" in read_artifact(tmp_path / "tflite-int4").files


def test_a_budget_keeps_the_most_sensitive_layers_in_float_and_is_met(source, tmp_path):
    free = quantize(source, tmp_path / "free", ["int4"], QUIET)
    wanted = 1 - 0.3 * (1 - free.facts["tflite-int4"].cosine)
    made = quantize(source, tmp_path / "held", ["int4"], dataclasses.replace(QUIET, min_cosine=wanted))
    (result,) = made.results
    kept = result.artifact.options["recipe"]["keep_float"]
    order = [layer.layer for layer in made.sensitivities["tflite-int4"]]
    assert 0 < len(kept) < len(order) and kept == order[: len(kept)]
    assert made.facts["tflite-int4"].cosine >= wanted > free.facts["tflite-int4"].cosine


class Linear:
    """A quantizer whose answers are worse by what each quantized layer costs."""

    libraries = ()

    def __init__(self, costs):
        self.costs = costs

    def write(self, source, target, recipe, calibration):
        return sum(cost for layer, cost in self.costs.items() if layer not in recipe.keep_float)


@pytest.mark.parametrize(("limit", "kept"), [(20.0, 0), (9.0, 1), (4.0, 2), (3.7, 3), (0.0, 14)])
def test_the_fewest_layers_are_kept(source, monkeypatch, limit, kept):
    names = layer_names(source.config)
    costs = dict(zip(names, [8.0, 5.0, 0.5, *[0.3] * (len(names) - 3)], strict=True))
    nothing = Calibration(np.zeros(1), (), 0, "")
    work = Work(Linear(costs), source, recipe_for("tflite", "int8"), nothing, lambda doing: None)
    monkeypatch.setattr(sensitivity, "answers", lambda artifact, images: artifact)
    table = tuple(Sensitivity(name, -cost, None) for name, cost in costs.items())

    class Points(Budget):
        def figure(self, outputs, exact):
            return outputs

    found = keep_fewest(work, table, Points(np.zeros(1), np.zeros(1, np.int64), None, limit))
    assert found.recipe.keep_float == names[:kept]


def test_top_1_points_are_counted_on_the_labels():
    exact, outputs = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 1, 2, 0]]
    budget = Budget(np.zeros(4), np.arange(4), None, 25.0)
    assert budget.figure(outputs, exact) == 25.0 and budget.met(25.0) and not budget.met(25.1)


def test_a_budget_that_nothing_meets_is_an_error_and_leaves_nothing_behind(source, tmp_path):
    with pytest.raises(ConfigError, match="expected at most 1"):
        QuantizeOptions(min_cosine=1.5)
    with pytest.raises(ConfigError, match="int8-full has integers alone"):
        quantize(source, tmp_path / "out", ["int8-full"], dataclasses.replace(QUIET, min_cosine=0.99))
    assert not (tmp_path / "out").exists()


def test_export_makes_fp32_for_the_others_and_keeps_it_only_where_it_is_asked_for(make_checkpoint, tmp_path):
    jobs, _ = plan(["tflite"], ["int8", "fp16"])
    made = export(make_checkpoint(), tmp_path, jobs, QUIET)
    assert [result.artifact.name for result in made.results] == ["tflite-int8", "tflite-fp16"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tflite-fp16", "tflite-int8"]
    assert set(made.facts) == {"tflite-fp32", "tflite-int8", "tflite-fp16"}
    assert made.facts["tflite-fp32"].size_ratio == 1 and made.facts["tflite-fp32"].cosine == pytest.approx(1)
    assert made.notes == []


def test_the_samples_come_with_a_warning_where_they_calibrate(source, tmp_path):
    assert quantize(source, tmp_path, ["int8"], QUIET).notes == []
    assert quantize(source, tmp_path, ["int8-static"], QUIET).notes == [SAMPLES_WARNING]
    assert quantize(source, tmp_path, ["int4"], QUIET).notes == [ROUNDING_NOTE]


def test_the_samples_come_with_a_note_where_biases_are_corrected_on_them(source):
    samples = read_calibration(None, source, count=8)
    recipes = {name: dataclasses.replace(recipe_for("tflite", name), bias_correction=True) for name in ("int8", "int4")}
    notes = {name: notes_on_ranges(source, recipe, samples) for name, recipe in recipes.items()}
    assert notes == {"int8": [CORRECTION_NOTE], "int4": [ROUNDING_NOTE, CORRECTION_NOTE]}


def test_what_cannot_be_is_refused_before_any_work(source, tmp_path, bundles):
    (int8,) = quantize(source, tmp_path / "made", ["int8"], QUIET).results
    with pytest.raises(ConfigError, match="is int8 already; quantizing starts from fp32"):
        quantize(int8.artifact, tmp_path / "out", ["fp16"], QUIET)
    with pytest.raises(ConfigError, match=r"no such layers: block_7\.ffn\.down"):
        quantize(source, tmp_path / "out", ["int8"], dataclasses.replace(QUIET, keep_float=("block_7.ffn.down",)))
    with pytest.raises(ConfigError, match="savedmodel cannot be quantized to 'int8'"):
        quantize(read_artifact(bundles["savedmodel"]), tmp_path / "out", ["int8"], QUIET)
    with pytest.raises(OutputError, match="already there"):
        quantize(source, tmp_path / "made", ["int8"], QUIET)
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit_are_refused(source, tmp_path):
    height, width = source.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (9, height, width, 3), dtype=np.uint8)
    for labels, message in (
        (np.arange(9), "labels from 0 to 8, .* has 5 classes"),
        (np.zeros(3, int), "9 images and 3 labels"),
    ):
        np.savez(tmp_path / "a.npz", images=pixels, labels=labels)
        options = dataclasses.replace(QUIET, max_drop=1.0, data=tmp_path / "a.npz")
        with pytest.raises(DataError, match=message):
            quantize(source, tmp_path / "out", ["int8"], options)


def test_measuring_leaves_layers_out_that_stay_in_float_anyway(source):
    kept = layer_names(source.config)[2:]
    recipe = dataclasses.replace(recipe_for("tflite", "int8"), keep_float=kept)
    quantizer = Constant()
    work = Work(quantizer, source, recipe, Calibration(np.zeros((1, 24, 32, 3), np.float32), (), 0, ""), lambda x: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "answers", lambda artifact, images: np.ones((1, 5), np.float32))
        assert {layer.layer for layer in measure_layers(work)} == set(layer_names(source.config)[:2])


class Constant:
    libraries = ()

    def write(self, source, target, recipe, calibration):
        return target


def test_labelled_images_are_read_batch_by_batch_each_time(source, tmp_path, monkeypatch):
    height, width = source.config.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (70, height, width, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(70) % 5)
    labelled = read_labelled(tmp_path / "a.npz", source)
    for _ in range(2):
        sizes = [len(image) for image in labelled]
        assert max(sizes) <= 32 and sum(sizes) == len(labelled) == 70
    whole = answers(source, source.preprocess.normalize(pixels))
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("the whole array was loaded"))
    np.testing.assert_allclose(answers(source, labelled), whole, atol=1e-6)


def test_a_budget_of_top_1_is_met_on_the_labelled_images(source, tmp_path):
    pixels = natural_pixels(160, *source.config.image_size, 3, seed=5)
    images = source.preprocess.normalize(pixels)
    free = quantize(source, tmp_path / "free", ["int4"], QUIET).results[0].artifact
    labels = answers(source, images).argmax(axis=1)
    changed = answers(free, images).argmax(axis=1) != labels
    kept = np.flatnonzero(changed | (np.cumsum(~changed) <= 3 * changed.sum()))
    spoiled = np.flatnonzero(~changed)[0]
    labels[spoiled] = (labels[spoiled] + 1) % 5  # fp32 is not always right either
    np.savez(tmp_path / "a.npz", images=pixels[kept], labels=labels[kept])
    options = dataclasses.replace(QUIET, max_drop=5.0, data=tmp_path / "a.npz")
    made = quantize(source, tmp_path / "held", ["int4"], options)
    (result,), facts = made.results, made.facts["tflite-int4"]
    outputs, before = (
        (answers(each, images[kept]).argmax(axis=1) == labels[kept]).mean() for each in (result.artifact, free)
    )
    assert 0.5 < facts.fp32_top1 == made.facts["tflite-fp32"].top1 < 1 and facts.images == len(kept)
    assert facts.top1 == pytest.approx(outputs) and 100 * (facts.fp32_top1 - facts.top1) <= 5 + 1e-9
    assert 100 * (facts.fp32_top1 - before) > 5
    assert 0 < len(result.artifact.options["recipe"]["keep_float"]) < len(layer_names(source.config))


def test_alone_means_that_nothing_else_is_rounded_in_a_file_of_integers_either(source):
    recipe = dataclasses.replace(recipe_for("tflite", "int8-full"), keep_float=layer_names(source.config)[1:-2])
    images = read_calibration(None, source, count=8)
    work = Work(QUANTIZERS.load("tflite")(), source, recipe, images, lambda doing: None)
    whole = cosines(work.answers(images.images), answers(source, images.images)).min()
    table = measure_layers(work)
    assert len({row.cosine for row in table}) == len(table) == 3 + source.config.num_layers
    assert all(1 - row.cosine < (1 - whole) / 2 for row in table)


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_the_same_seed_gives_the_same_file_and_another_seed_another(format, bundles, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3 * COUNT // 2, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=pixels)
    found = []
    for name, seed in (("one", 4), ("again", 4), ("other", 5)):
        options = dataclasses.replace(QUIET, calibrate=tmp_path / "many.npz", seed=seed, clipping=Clipping.MIN_MAX)
        (result,) = quantize(read_artifact(bundles[format]), tmp_path / name, ["int8-static"], options).results
        said = result.artifact.options["calibration"]
        assert (said["seed"], said["images"], len(set(said["digests"]))) == (seed, COUNT, COUNT)
        found.append((sha256(result.artifact.model_path), said["digests"]))
    assert found[0] == found[1] and found[0][0] != found[2][0] and found[0][1] != found[2][1]


@pytest.fixture
def failing(monkeypatch):
    """Has one precision of TFLite fail as its engine would."""
    from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer

    def plant(*precisions):
        whole = TFLiteQuantizer.write

        def write(self, source, target, recipe, calibration):
            if recipe.precision in precisions:
                raise EngineError(f"no kernels in {target.directory / 'model.tflite'}", fix="take another")
            return whole(self, source, target, recipe, calibration)

        monkeypatch.setattr(TFLiteQuantizer, "write", write)

    return plant


def test_a_precision_that_fails_does_not_stop_the_others_and_is_told_with_its_reason(source, tmp_path, failing):
    failing("int8")
    made = quantize(source, tmp_path, ["fp16", "int8", "int4"], QUIET)
    assert [result.artifact.precision for result in made.results if result.published] == ["fp16", "int4"]
    assert set(made.facts) == {"tflite-fp32", "tflite-fp16", "tflite-int4"}
    (failed,) = made.failed
    assert (failed.name, failed.format, failed.precision) == ("tflite-int8", "tflite", "int8")
    # The hidden folder in which it was made is gone, so that it is called by the name that it would have had.
    assert failed.error.message == f"no kernels in {tmp_path / 'tflite-int8' / 'model.tflite'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tflite-fp16", "tflite-int4"]


def test_where_every_precision_fails_there_is_one_error_that_tells_of_all(source, tmp_path, failing):
    failing("int8", "int4")
    with pytest.raises(EngineError, match=r"no kernels in .*int8.*; tflite-int4: no kernels in .*int4"):
        quantize(source, tmp_path / "out", ["int8", "int4"], QUIET)
    assert not (tmp_path / "out").exists()


def test_a_budget_that_one_precision_cannot_meet_does_not_stop_the_others(source, tmp_path, monkeypatch):
    def keep_fewest(work, table, budget):
        if work.recipe.precision == "int8":
            raise ConfigError("int8 does not reach it")
        return work

    monkeypatch.setattr("vit_deploy.exporters.quantization.pipeline.keep_fewest", keep_fewest)
    monkeypatch.setattr("vit_deploy.exporters.quantization.pipeline.measure_layers", lambda work: ())
    made = quantize(source, tmp_path, ["int8", "fp16"], dataclasses.replace(QUIET, min_cosine=0.5))
    assert [str(failure.error) for failure in made.failed] == ["int8 does not reach it"]
    assert [path.name for path in tmp_path.iterdir()] == ["tflite-fp16"]


class Refusing:
    libraries = ()

    def write(self, checkpoint, artifact, options):
        raise ExportError("the graph is upside down")


def test_a_format_that_fails_does_not_stop_the_others_and_its_precisions_say_why(
    make_checkpoint, tmp_path, monkeypatch
):
    from vit_deploy.exporters import EXPORTERS, publish

    table = {"onnx": Plugin(f"{__name__}:Refusing"), "tflite": EXPORTERS["tflite"]}
    monkeypatch.setattr(publish, "EXPORTERS", Registry("format", table))
    jobs, _ = plan(["onnx", "tflite"], ["fp32", "fp16"])
    for asked in (jobs, [job for job in jobs if job.precision != "fp32"]):
        made = export(make_checkpoint(), tmp_path / str(len(asked)), asked, QUIET)
        assert [result.artifact.name for result in made.results] == [
            job.name for job in asked if job.format == "tflite"
        ]
        assert [failure.name for failure in made.failed] == [job.name for job in asked if job.format == "onnx"]
        assert made.failed[-1].error.message == (
            "the fp32 file that it is made of could not be made: the graph is upside down"
        )


def test_a_disk_that_is_full_stops_everything_and_tells_what_is_there(source, tmp_path, monkeypatch):
    from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer

    whole = TFLiteQuantizer.write

    def write(self, source, target, recipe, calibration):
        if recipe.precision == "int8":
            raise OSError(errno.ENOSPC, "no space")
        return whole(self, source, target, recipe, calibration)

    monkeypatch.setattr(TFLiteQuantizer, "write", write)
    with pytest.raises(OutputError, match=rf"no space left .*; already published: {tmp_path / 'tflite-fp16'}\n"):
        quantize(source, tmp_path, ["fp16", "int8", "int4"], QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["tflite-fp16"]


def test_files_whose_fp32_fails_its_proof_are_not_named_by_a_folder_that_is_gone(
    make_checkpoint, tmp_path, monkeypatch
):
    from vit_deploy.exporters import publish

    whole = publish.verify

    def verify(artifact, **options):
        proof = whole(artifact, **options)
        return dataclasses.replace(proof, parity=proof.parity.failed("it is another function"))

    monkeypatch.setattr(publish, "verify", verify)
    made = export(make_checkpoint(), tmp_path, plan(["tflite"], ["int8"])[0], QUIET)
    (source,) = made.results
    assert source.artifact.directory == tmp_path / "tflite-fp32" and not source.published
    assert made.skipped == ["tflite-int8: the fp32 file that it is made of failed its proof: it is another function"]
    assert list(tmp_path.iterdir()) == []


def test_what_a_search_found_is_measured_once_more_on_the_file_that_is_published(source, tmp_path):
    options = dataclasses.replace(QUIET, min_cosine=0.9)
    made = quantize(source, tmp_path / "good", ["int8"], options)
    budget = made.budgets["tflite-int8"]
    images = read_calibration(None, source).images
    found = float(cosines(answers(made.results[0].artifact, images), answers(source, images)).min())
    assert budget == {"max_drop": None, "min_cosine": 0.9, "reached": pytest.approx(found), "images": len(images)}
    (said,) = [note for note in made.notes if note.startswith("tflite-int8 has a smallest cosine of ")]
    assert said.endswith(f"with fp32 on {len(images)} images, 0.9 asked for; no layer stays in float")


def test_a_file_that_is_not_what_the_search_took_it_for_is_not_published(source, tmp_path, monkeypatch):
    monkeypatch.setattr("vit_deploy.exporters.quantization.pipeline.keep_fewest", lambda work, table, budget: work)
    monkeypatch.setattr("vit_deploy.exporters.quantization.pipeline.measure_layers", lambda work: ())
    with pytest.raises(ConfigError, match=r"tflite-int4 has a smallest cosine of .*, 1 asked for"):
        quantize(source, tmp_path, ["int4"], dataclasses.replace(QUIET, min_cosine=1.0))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_file_that_finds_ranges_over_the_batch_says_that_answers_depend_on_it(bundles, tmp_path):
    made = quantize(read_artifact(bundles["onnx"]), tmp_path, ["int8", "int8-static", "fp16"], QUIET)
    shares = {name: fact.changed_by_mates for name, fact in made.facts.items()}
    assert {name for name, share in shares.items() if share is not None} == {"onnx-int8"}
    artifact, images = made.results[0].artifact, read_calibration(None, read_artifact(bundles["onnx"])).images
    alone = np.concatenate([answers(artifact, image[None]) for image in images])
    together = answers(artifact, images)
    assert shares["onnx-int8"] == pytest.approx((alone.argmax(axis=-1) != together.argmax(axis=-1)).mean())
    (said,) = verdicts(made.facts)
    assert said.startswith("onnx-int8 finds the ranges of activations over the whole batch") and "int8-static" in said


def test_files_of_tflite_answer_each_image_alone(make_checkpoint, tmp_path):
    jobs, _ = plan(["tflite"], ["int8"], batch="3")
    made = export(make_checkpoint(), tmp_path, jobs, QUIET)
    artifact = made.results[0].artifact
    images = read_calibration(None, artifact, count=8).images[:6]
    beside = answers(artifact, images[[0, 1, 2]])[0]
    assert np.array_equal(answers(artifact, images[[0, 4, 5]])[0], beside)
    assert made.facts["tflite-int8"].changed_by_mates is None
