"""Converters of chip makers, run by the command that an export tells, and what their simulators answer.

Each lives in an environment of its own: CONTRIBUTING.md says which, and by which variable it is named here.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import vit_deploy
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.conversion import Conversion
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.reference_outputs import forward_outputs
from vit_deploy.verification.golden import read_golden

pytestmark = pytest.mark.slow

LEAST = 50.0  # dB, of files whose converters compute in half precision
IMAGES = 4

RKNN = """
import sys
import numpy as np
from rknn.api import RKNN

rknn = RKNN()
rknn.config(target_platform="rk3588")
assert rknn.load_onnx("model.onnx") == 0 and rknn.build(do_quantization=False) == 0 and rknn.init_runtime() == 0
images = np.load("images.npy")
# Its simulator takes what it calls nhwc in the layout of the file, and what it calls nchw as it is.
answers = [rknn.inference(inputs=[image[None]], data_format=["nchw"])[0][0] for image in images]
np.save("answers.npy", np.array(answers))
"""

TPU_MLIR = """
import subprocess
import numpy as np

answers = []
for image in np.load("images.npy"):
    np.savez("in.npz", images=image[None])
    subprocess.run(["model_runner.py", "--input", "in.npz", "--model", "vit.bmodel", "--output", "out.npz"], check=True)
    [answer] = np.load("out.npz").values()
    answers.append(answer.reshape(-1))
np.save("answers.npy", np.array(answers))
"""

# Core ML runs on Apple's systems alone: the program of the file that the command wrote, operator by operator, in NumPy,
# each of whose results is rounded to the type that the program gives it.
COREML = """
import numpy as np
import coremltools as ct
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.converters.mil.mil import types
from scipy.special import erf, softmax

made = ct.models.MLModel("model.mlpackage", skip_model_load=True)
spec = made.get_spec()
of_file = load(spec, specification_version=spec.specificationVersion, file_weights_dir=made.weights_dir)
program = of_file.functions["main"]


def matmul(x, y, transpose_x, transpose_y):
    x, y = (np.swapaxes(v, -1, -2) if turned else v for v, turned in ((x, transpose_x), (y, transpose_y)))
    return x @ y


def conv(x, weight, strides, pad_type, dilations, groups, bias=None, pad=None):
    assert pad_type == "valid" and groups == 1 and tuple(dilations) == (1, 1)
    high, wide = weight.shape[2:]
    assert tuple(strides) == (high, wide)
    patches = x.reshape(*x.shape[:2], x.shape[2] // high, high, x.shape[3] // wide, wide)
    bias = np.zeros(len(weight)) if bias is None else bias
    return np.einsum("bchpwq,ocpq->bohw", patches, weight) + bias[:, None, None]


def gelu(x, mode):
    assert str(mode) == "EXACT"
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def layer_norm(x, axes, epsilon, gamma=1.0, beta=0.0):
    axes = tuple(axes)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon) * gamma + beta


def slice_by_size(x, begin, size):
    return x[tuple(slice(b, None if s == -1 else b + s) for b, s in zip(begin, size))]


OPERATORS = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "erf": lambda x: erf(x),
    "rsqrt": lambda x, epsilon: 1 / np.sqrt(x + epsilon), "matmul": matmul, "conv": conv,
    "transpose": lambda x, perm: x.transpose(perm), "reshape": lambda x, shape: x.reshape(shape),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axis=tuple(axes), keepdims=bool(keep_dims)),
    "softmax": lambda x, axis: softmax(x, axis=axis), "slice_by_size": slice_by_size,
    "concat": lambda values, axis, interleave: np.concatenate(values, axis=axis),
    "squeeze": lambda x, axes: x.squeeze(tuple(axes)), "expand_dims": lambda x, axes: np.expand_dims(x, tuple(axes)),
    "gelu": gelu, "layer_norm": layer_norm, "cast": lambda x, dtype: x, "real_div": lambda x, y: x / y,
    "linear": lambda x, weight, bias=0.0: x @ weight.T + bias, "square": lambda x: x * x,
}


def value(variable, known):
    if isinstance(variable, (list, tuple)):
        return [value(one, known) for one in variable]
    return known[variable.name] if variable.name in known else variable.val


def answer(image):
    known = {name: image for name in program.inputs}
    for operation in program.operations:
        if operation.op_type == "const" or operation.op_type.startswith("constexpr"):
            continue
        given = {name: value(variable, known) for name, variable in operation.inputs.items() if variable is not None}
        given = {name: np.float64(v) if isinstance(v, (np.float16, np.ndarray)) and v.dtype == np.float16 else v
                 for name, v in given.items()}
        made = operation.outputs[0]
        found = OPERATORS[operation.op_type](**given)
        known[made.name] = np.float64(np.float16(found)) if made.dtype == types.fp16 else found
    return {variable.name: known[variable.name][0] for variable in program.outputs}


assert {operation.outputs[0].dtype for operation in program.operations} & {types.fp16, types.fp32} == {types.fp16}
assert [each.name for each in spec.description.output] == [variable.name for variable in program.outputs]
found = [answer(np.float64(np.float16(image[None]))) for image in np.load("images.npy")]
answers = {name: np.array([each[name] for each in found]) for name in found[0]}
np.savez("answers.npz", **answers)
np.save("answers.npy", next(iter(answers.values())))
"""

CONVERTERS = {
    "rknn": ("VIT_DEPLOY_RKNN", RKNN, "model.rknn"),
    "tpu-mlir": ("VIT_DEPLOY_TPU_MLIR", TPU_MLIR, "vit.bmodel"),
    "coreml": ("VIT_DEPLOY_COREML", COREML, "model.mlpackage"),
}


def in_environment(target: str, program: list[str], folder: Path) -> None:
    """Run a program in the environment of a converter, in a folder."""
    variable = CONVERTERS[target][0]
    if variable not in os.environ:
        pytest.skip(f"needs {variable}, the folder of an environment with its converter")
    path = f"{Path(os.environ[variable]) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        program, cwd=folder, env=outside | {"PATH": path}, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def snr_db(answers: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(answers - expected).sum()))


def converted_and_asked(artifact: Artifact, target: str, images: NDArray[np.float32]) -> None:
    """Run the command that an artifact tells, then the simulator on images, both in the artifact's folder."""
    _, simulator, converted = CONVERTERS[target]
    record = Conversion.of(read_artifact(artifact.directory))
    assert record is not None
    in_environment(target, ["bash", "-ec", record.command], artifact.directory)
    assert (artifact.directory / converted).exists()
    images = images.transpose(0, 3, 1, 2) if artifact.input.layout == "nchw" else images
    np.save(artifact.directory / "images.npy", np.ascontiguousarray(images))
    (artifact.directory / "simulate.py").write_text(simulator)
    in_environment(target, ["python", "simulate.py"], artifact.directory)


SIZES = {"image_size": (64, 48), "patch_size": (8, 8), "embed_dim": 48, "num_heads": 3, "mlp_dim": 96}


@pytest.mark.parametrize("target", CONVERTERS)
def test_the_command_that_is_told_converts_the_file_and_its_program_answers_the_same(target, make_checkpoint, tmp_path):
    [artifact] = vit_deploy.export(make_checkpoint(**SIZES), tmp_path / "made", target=target)
    golden = read_golden(artifact)
    converted_and_asked(artifact, target, golden.images[:IMAGES])
    found = snr_db(np.load(artifact.directory / "answers.npy"), golden.outputs[:IMAGES])
    print(f"{target}: {found:.1f} dB")
    assert found >= LEAST


def test_outputs_of_a_core_ml_program_have_the_names_of_what_they_compute(make_checkpoint, tmp_path):
    names = ["tokens", "probabilities", "block_0.attention", "map", "logits"]
    checkpoint = make_checkpoint(**SIZES)
    [artifact] = vit_deploy.export(checkpoint, tmp_path / "made", target="coreml", outputs=names)
    images = read_golden(artifact).images[:2]
    converted_and_asked(artifact, "coreml", images)
    answers = np.load(artifact.directory / "answers.npz")
    assert set(answers) == {name.replace(".", "_") for name in names}
    expected = forward_outputs(checkpoint, images, outputs_of_model(names, checkpoint.config))
    for name in names:
        assert snr_db(answers[name.replace(".", "_")], expected[name]) >= LEAST, name
