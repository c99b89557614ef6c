"""The entries at the top of a card, by which a hub finds and sorts models."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from vit_deploy.core.origin import Origin, origin_in
from vit_deploy.performance.card.measured import Subject

# What the hub knows as licences; any other one is `other` with its name.
LICENCES = {
    *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bsd", "bsd-2-clause"),
    *("bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0"),
    *("cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "ecl-2.0"),
    *("epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl"),
    *("lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "ncsa", "osl-3.0", "postgresql", "unlicense", "wtfpl", "zlib"),
    *("afl-3.0", "artistic-2.0", "bsl-1.0", "lppl-1.3c", "ofl-1.1", "unknown", "other"),
}
PLAIN = re.compile(r"[A-Za-z][\w./-]*$", re.ASCII)
RESERVED = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
LIBRARIES = {"onnx": "onnx", "tflite": "tflite", "savedmodel": "tf-keras", "tensorrt": "tensorrt"}
CLASSES, FEATURES = "image-classification", "image-feature-extraction"
FP32 = "fp32"


def front_matter(subjects: Sequence[Subject]) -> str:
    """The entries, between lines of dashes."""
    origins = origins_of(subjects)
    formats = list(dict.fromkeys(subject.artifact.format for subject in subjects))
    entries: dict[str, str | list[str]] = {}
    entries |= _licence(origins)
    if bases := list(dict.fromkeys(origin.repository for origin in origins if origin.repository)):
        entries["base_model"] = bases
        if any(subject.artifact.precision != FP32 for subject in subjects):
            entries["base_model_relation"] = "quantized"
    entries["pipeline_tag"] = CLASSES if subjects[0].artifact.config.include_top else FEATURES
    entries["library_name"] = LIBRARIES.get(formats[0], formats[0])
    if any(accuracy.top1 is not None for subject in subjects for accuracy in subject.accuracies):
        entries["metrics"] = ["accuracy"]
    precisions = dict.fromkeys(subject.artifact.precision for subject in subjects)
    entries["tags"] = ["vit-deploy", "vision-transformer", *formats, *precisions]
    lines = [line for name, value in entries.items() for line in _entry(name, value)]
    return "\n".join(["---", *lines, "---", ""])


def origins_of(subjects: Sequence[Subject]) -> list[Origin]:
    """Where the models come from, as far as that is recorded."""
    found = (origin_in(subject.artifact.provenance) for subject in subjects)
    return [origin for origin in found if origin is not None]


def licences_of(subjects: Sequence[Subject]) -> list[str]:
    """Licences that the artifacts record."""
    stated = (name.strip() for origin in origins_of(subjects) for name in origin.licence.split(","))
    return list(dict.fromkeys(name for name in stated if name))


def _licence(origins: Sequence[Origin]) -> dict[str, str | list[str]]:
    names = list(
        dict.fromkeys(name.strip() for origin in origins for name in origin.licence.split(",") if name.strip())
    )
    known = [name.lower() for name in names]
    if not names:
        return {}
    if len(names) == 1 and known[0] not in LICENCES:
        link = next((origin.licence_link for origin in origins if origin.licence_link.startswith("https://")), "")
        named: dict[str, str | list[str]] = {"license": "other", "license_name": names[0]}
        return {**named, "license_link": link} if link else named
    listed = list(dict.fromkeys(name if name in LICENCES else "other" for name in known))
    return {"license": listed[0] if len(listed) == 1 else listed}


def _entry(name: str, value: str | list[str]) -> list[str]:
    if isinstance(value, str):
        return [f"{name}: {_scalar(value)}"]
    return [f"{name}:", *(f"- {_scalar(item)}" for item in value)]


def _scalar(text: str) -> str:
    """A text of YAML, in quotes where it could be taken for something else."""
    return text if PLAIN.match(text) and text.lower() not in RESERVED else json.dumps(text)
