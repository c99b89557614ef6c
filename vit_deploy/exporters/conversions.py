"""The commands by which makers' converters take the files that are made for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.conversion import RECORD, Conversion
from vit_deploy.core.format import Target


def conversion(artifact: Artifact) -> Conversion | None:
    """How the converter of what an artifact is made for takes its file; None where there is none."""
    made = CONVERSIONS.get(artifact.options.get("for", Target.CPU))
    return None if made is None else made(artifact)


def record_of(artifact: Artifact) -> dict[str, dict[str, str]]:
    """What a manifest says of it among its options; empty where there is none."""
    found = conversion(artifact)
    return {} if found is None else {RECORD: found.to_dict()}


def told(artifact: Artifact) -> tuple[str, ...]:
    """What whoever exports is told; nothing where there is no converter."""
    found = Conversion.of(artifact)
    if found is None:
        return ()
    return (
        f"{artifact.name} is for {found.converter} ({found.install}), which converts it in {artifact.directory} by\n\n"
        f"{found.command}",
    )


def _rknn(artifact: Artifact) -> Conversion:
    shape = ", ".join(map(str, artifact.input.shape))
    mean, std = (
        [[round(255 * value, 4) for value in values]] for values in (artifact.preprocess.mean, artifact.preprocess.std)
    )
    return Conversion(
        "rknn-toolkit2",
        "2.5.0",
        "pip install rknn-toolkit2, on Python 3.10",
        f"""\
python - <<'END'
from rknn.api import RKNN

rknn = RKNN()
# Pixels as the input: add mean_values={mean}, std_values={std}
rknn.config(target_platform="rk3588")
assert rknn.load_onnx("{artifact.model_path.name}") == 0
# 8 bits: do_quantization=True, dataset="images.txt", which lists .npy files of ({shape}), as the file takes them
assert rknn.build(do_quantization=False) == 0
assert rknn.export_rknn("model.rknn") == 0
END
""",
    )


def _coreml(artifact: Artifact) -> Conversion:
    # A signature gives its outputs in the order of their names, and the converter calls them so. A program has no dots
    # in names.
    names = [name.replace(".", "_") for name in sorted(artifact.outputs) or [artifact.output_name]]
    found = {f"Identity_{index}" if index else "Identity": name for index, name in enumerate(names)}
    return Conversion(
        "coremltools",
        "9.0",
        "pip install coremltools tensorflow",
        f"""\
python - <<'END'
import coremltools as ct

# Computes in half precision; ct.precision.FLOAT32 is the other.
made = ct.convert(
    "{artifact.model_path.name}",
    source="tensorflow",
    compute_precision=ct.precision.FLOAT16,
    minimum_deployment_target=ct.target.iOS16,
)
spec = made.get_spec()
for found, name in {found}.items():
    ct.utils.rename_feature(spec, found, name)
ct.models.MLModel(spec, weights_dir=made.weights_dir).save("model.mlpackage")
END
""",
    )


def _tpu_mlir(artifact: Artifact) -> Conversion:
    shape = ",".join(map(str, artifact.input.shape))
    return Conversion(
        "tpu-mlir",
        "1.30.2",
        "pip install tpu_mlir onnx==1.14.1 torch==1.12.1, on Python 3.10",
        f"""\
model_transform.py --model_name vit --model_def {artifact.model_path.name} --input_shapes '[[{shape}]]' --mlir vit.mlir
# 8 bits: --quantize INT8 --calibration_table vit_cali, which this makes of .npz files with `{artifact.input.name}`:
# run_calibration.py vit.mlir --dataset IMAGES --input_num 100 -o vit_cali
model_deploy.py --mlir vit.mlir --quantize F16 --processor bm1684x --model vit.bmodel
""",
    )


CONVERSIONS: Mapping[str, Callable[[Artifact], Conversion]] = {
    Target.RKNN: _rknn,
    Target.COREML: _coreml,
    Target.TPU_MLIR: _tpu_mlir,
}
