"""What errors of calibrated values weigh: those of scores as much as their shares."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.clipping import clipped
from vit_deploy.exporters.quantization.recipes import Clipping
from vit_deploy.exporters.tflite.ranges import observe


def fp32(checkpoint, folder):
    (made,) = export(checkpoint, folder, plan(["tflite"], ["fp32"])[0])
    return made.artifact


def scores(source, images):
    """What each softmax reads, by its name, on all images, in LiteRT's own words."""
    engine = Interpreter(
        model_path=str(source.model_path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    engine.allocate_tensors()
    names = {detail["index"]: detail["name"] for detail in engine.get_tensor_details()}
    found = {int(detail["inputs"][0]): [] for detail in engine._get_ops_details() if detail["op_name"] == "SOFTMAX"}
    for image in images:
        engine.set_tensor(engine.get_input_details()[0]["index"], image[None])
        engine.invoke()
        for index, values in found.items():
            values.append(engine.get_tensor(index))
    return {names[index]: np.concatenate(values) for index, values in found.items()}


def test_scores_weigh_as_their_shares_and_all_else_the_same(make_checkpoint, tmp_path):
    source = fp32(make_checkpoint(), tmp_path)
    calibration = read_calibration(None, source, count=8)
    seen = observe(source.model_path, source.input, calibration, counted=True).tensors
    read = scores(source, calibration.images)
    assert {name for name, value in seen.items() if value.worth.size} == set(read) != set()
    for name, values in read.items():
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        counted = np.flatnonzero(seen[name].worth)
        bins = ((counted.astype(np.uint32) << 16) | 0x8000).view(np.float32)
        for limit in (np.median(values), np.inf):  # what is counted as one differs by up to 1/128
            weight = seen[name].worth[counted[bins <= limit]].sum()
            assert weight == pytest.approx(shares[values <= limit].sum(), rel=0.05)


def test_the_largest_scores_are_kept_and_the_lowest_may_be_cut_off(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    sharp = {name: 6 * tensor for name, tensor in checkpoint.weights.items() if ".attention.query." in name}
    source = fp32(dataclasses.replace(checkpoint, weights=checkpoint.weights | sharp), tmp_path)
    calibration = read_calibration(None, source)
    seen = observe(source.model_path, source.input, calibration, counted=True).tensors
    read = [seen[name] for name in scores(source, calibration.images[:1])]
    ranges = [clipped(each, Clipping.MSE, bits=8, percentile=0) for each in read]
    assert all(high == stored.high for (_, high), stored in zip(ranges, read, strict=True))
    assert any(low > 0.9 * stored.low for (low, _), stored in zip(ranges, read, strict=True))
