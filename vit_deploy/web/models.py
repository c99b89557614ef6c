"""What a page holds of an artifact: facts that its script reads, and the bytes of the model and of its proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.choices import Probabilities
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.images import MODES
from vit_deploy.core.origin import origin_in
from vit_deploy.core.outputs import Kind, Part
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.quantities import megabytes
from vit_deploy.errors import ConfigError
from vit_deploy.runtimes.web.engines import WASM, refuse_impossible
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.parity import foreign, judge
from vit_deploy.verification.tolerances import LIMITS, margin_noise, tolerance_for

RUNNING = ("onnx", "tflite")  # formats that have an engine in JavaScript
MOST_GOLDEN_BYTES = 8_000_000  # of images that a page proves itself on
FEWEST_GOLDEN = 2


@dataclass(frozen=True)
class Content:
    """Bytes that a page holds, or that lie beside it.

    Args:
        name: by which its script asks for them.
        data: the bytes themselves.
        file: where they lie beside a page that does not hold them; empty for those that every page holds.
    """

    name: str
    data: bytes
    file: str = ""


@dataclass(frozen=True)
class Model:
    """A model as a page holds it.

    Args:
        facts: what the page's script has to know, in plain JSON values.
        contents: the bytes that they name.
    """

    facts: dict[str, Any]
    contents: tuple[Content, ...]


def check_artifact(artifact: Artifact) -> None:
    """Refuse what a page cannot run, or cannot show.

    Raises:
        ConfigError: another format than ONNX and TFLite, files for GPUs or accelerators, a model without classes or for
            other channels.
        EngineError: what its engine cannot run in a browser, or weights that lie outside of the artifact.
    """
    if artifact.format not in RUNNING:
        raise ConfigError(
            f"{artifact.path} is {FORMATS[artifact.format].title}, and a page runs ONNX and TFLite files",
            fix="give the ONNX or TFLite artifact of the same model",
        )
    if artifact.input.dtype == "int8" or artifact.output.dtype == "int8":
        raise ConfigError(
            f"{artifact.path} takes and gives int8, which LiteRT.js does not", fix="give the artifact in int8"
        )
    target = artifact.options.get("for", Target.CPU)
    if target not in (Target.CPU, Target.WEB, Target.TRANSFORMERS_JS):
        raise ConfigError(f"{artifact.path} is made for {target}, which no browser has", fix="export it without --for")
    if not artifact.gives_logits:
        raise ConfigError(f"{artifact.path} gives no logits, and a page shows classes", fix="give a model with a head")
    if artifact.config.channels not in MODES:
        raise ConfigError(
            f"{artifact.path} takes images of {artifact.config.channels} channels, and a page reads those of 1 or 3"
        )
    refuse_impossible(artifact, WASM)
    refuse = FORMATS[artifact.format].refuse
    if refuse is not None:
        refuse.load()(artifact.model_path)


def model_of(artifact: Artifact, name: str) -> Model:
    """An artifact as a page holds it.

    Args:
        artifact: one that `check_artifact` does not refuse.
        name: by which the page calls it; no other model of the page has it.

    Raises:
        ArtifactError: the golden data are missing or damaged.
    """
    config, golden = artifact.config, read_golden(artifact)
    contents = [Content(f"{name}-model", artifact.model_path.read_bytes(), f"models/{name}/{artifact.model_path.name}")]
    data = artifact.directory / f"{artifact.model_path.name}.data"
    if data.is_file():
        contents.append(Content(f"{name}-data", data.read_bytes(), f"models/{name}/{data.name}"))
    proof, proof_contents = _proof(artifact, golden, name)
    facts = {
        "name": name,
        "format": artifact.format,
        "signature": artifact.signature,
        "model": contents[0].name,
        "data": contents[1].name if len(contents) > 1 else None,
        "data_name": data.name,
        "image_size": list(config.image_size),
        "channels": config.channels,
        "preprocess": artifact.preprocess.to_dict(),
        "preprocessing_inside": artifact.input.preprocessing_inside,
        "labels": list(artifact.labels),
        "input": {
            "name": artifact.input.name,
            "dtype": artifact.input.dtype,
            "layout": artifact.input.layout,
            "batch": artifact.input.batch,
        },
        "output": artifact.output_name,
        "sigmoid": config.probabilities is Probabilities.SIGMOID,
        "grid": list(config.grid),
        "heads": config.num_heads,
        "prefix": config.num_prefix_tokens,
        "class_token": config.class_token,
        "maps": _maps(artifact),
        "card": [list(row) for row in _card(artifact, golden)],
        **proof,
    }
    return Model(facts, (*contents, *proof_contents))


def _proof(artifact: Artifact, golden: Golden, name: str) -> tuple[dict[str, Any], list[Content]]:
    stored, dtype = _stored(golden.images, artifact.preprocess)
    count = min(len(stored), max(FEWEST_GOLDEN, MOST_GOLDEN_BYTES // stored[0].nbytes))
    kept = dataclasses.replace(golden, images=golden.images[:count], outputs=golden.outputs[:count])
    tolerance = tolerance_for(artifact.precision, golden.noise_floor)
    signal_rms = float(np.sqrt(np.mean(np.square(kept.outputs))))
    # What the reference itself would be told with its own answers: whether they prove anything.
    parity = judge(kept.outputs, kept, classes=True, precision=artifact.precision)
    contents = [
        Content(f"{name}-images", np.ascontiguousarray(stored[:count]).tobytes()),
        Content(f"{name}-outputs", np.ascontiguousarray(kept.outputs, "<f8").tobytes()),
    ]
    photo = None
    if golden.photo is not None:
        contents.append(Content(f"{name}-photo-file", golden.photo.file.tobytes()))
        contents.append(Content(f"{name}-photo-pixels", np.ascontiguousarray(golden.photo.pixels).tobytes()))
        photo = {"file": contents[-2].name, "pixels": contents[-1].name}
    facts = {
        "tolerance": tolerance.held(),
        "golden": {
            "count": count,
            "dtype": dtype,
            "images": contents[0].name,
            "outputs": contents[1].name,
            "noise": margin_noise(tolerance, golden.noise_floor, signal_rms),
            "inconclusive": "; ".join(parity.failures),
        },
        "photo": photo,
    }
    return facts, contents


def _stored(images: NDArray[Any], preprocess: Preprocess) -> tuple[NDArray[Any], str]:
    """Golden images as the pixels that they are made of, where these give them back to the bit; else as they are."""
    if images.dtype == np.uint8:
        return images, "uint8"
    scale, offset = preprocess.scale_and_offset()
    pixels = np.clip(np.rint((images - offset) / scale), 0, 255).astype(np.uint8)
    if np.array_equal(preprocess.normalize(pixels), images):
        return pixels, "uint8"
    return images.astype("<f4"), "float32"


def _maps(artifact: Artifact) -> list[dict[str, str]]:
    """The outputs that can be drawn over the patches of an image, attention first."""
    found = []
    for output in artifact.named_outputs:
        if output.kind is Kind.ATTENTION:
            found.append({"name": output.name, "kind": "attention"})
        elif output.part in (Part.PATCHES, Part.MAP):
            found.append({"name": output.name, "kind": "patches"})
    return sorted(found, key=lambda entry: entry["kind"])


def _card(artifact: Artifact, golden: Golden) -> Sequence[tuple[str, str]]:
    config, origin = artifact.config, origin_in(artifact.provenance)
    tolerance = tolerance_for(artifact.precision, golden.noise_floor).held()
    held = [(LIMITS[metric], value) for metric, value in tolerance.items() if metric not in foreign(classes=True)]
    limits = ", ".join(f"{limit.words} {value:.3g}{limit.unit}" for limit, value in held)
    height, width = config.image_size
    rows = [
        ("Model", f"Vision Transformer, {config.num_layers} blocks of {config.embed_dim} numbers a token"),
        ("Precision", artifact.precision),
        ("Size", megabytes(artifact.model_bytes)),
        ("Images", f"{height}x{width} pixels (height x width), {_resize(artifact.preprocess)}"),
        ("Classes", str(config.num_classes)),
        ("Licence", (origin.licence if origin else "") or "not recorded"),
    ]
    if origin is not None and origin.repository:
        rows.append(("From", f"{origin.repository} at {origin.commit[:12]}"))
    rows += [
        ("Proof", f"against a float64 reference of the same network; held to: {limits}"),
        ("Weights", artifact.weights_digest[:12] or "not recorded"),
        ("Exported by", f"vit-deploy {artifact.producer.get('vit-deploy', 'of an unknown version')}"),
    ]
    return rows


def _resize(preprocess: Preprocess) -> str:
    cut = ", middle cut out" if preprocess.crop else ""
    return f"{preprocess.interpolation} resize{cut}"


def names_of(artifacts: Sequence[Artifact]) -> list[str]:
    """A name for each artifact of a page: its folder's, with the folder around it where two have the same."""
    folders = [artifact.directory.resolve() for artifact in artifacts]
    own = [folder.name for folder in folders]
    longer = [
        f"{folder.parent.name}-{folder.name}" if own.count(folder.name) > 1 else folder.name for folder in folders
    ]
    named = list(map(_plain, longer))
    return [name if named.count(name) == 1 else f"{name}-{index + 1}" for index, name in enumerate(named)]


def _plain(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in text)
