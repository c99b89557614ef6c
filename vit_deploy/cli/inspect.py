"""`vit-deploy inspect`: the contents of a checkpoint, a model file or an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vit_deploy.cli.columns import prose
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, Option

if TYPE_CHECKING:  # at run time they would bring NumPy into every `--help`
    from vit_deploy.core.artifact import Artifact
    from vit_deploy.formats.accelerators import Verdict
    from vit_deploy.formats.graph import Graph
    from vit_deploy.formats.inspect import Inspection

SHOWN = 3  # labels in the table
LEVELS = 3  # of mappings and lists in the facts of a step


@command
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="An artifact, an ONNX or TFLite file, a SavedModel, a TensorRT plan, a checkpoint.",
            show_default=False,
        ),
    ],
    snippet: Annotated[bool, Option(help="Print Python that runs it in its plain engine instead.")] = False,
    *,
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Show config, size, operators, inputs and outputs, preprocessing and origin; nothing is run."""
    from vit_deploy.api import insight as api
    from vit_deploy.cli.output import Output

    out = Output("inspect", printing)
    with out.progress() as progress:
        outcome = api.inspect(path, snippet=snippet, reading=reading, progress=progress)
    out.tell_assumed(outcome)
    if snippet and not printing.json:
        print(outcome.records[0]["snippet"], end="")
        return 0
    for note in outcome.result.notes:
        out.note(note)
    return out.show(outcome, columns=(prose("of"), prose(str(path))), rows=_rows(outcome.result))


def _rows(found: Inspection) -> list[tuple[str, str]]:
    from vit_deploy.core.quantities import megabytes

    rows = [("kind", f"{found.format} {found.kind}"), ("size", megabytes(found.bytes))]
    if found.artifact is not None:
        rows += [("precision", found.artifact.precision)]
        rows += [("made for", str(found.artifact.options["for"]))] if "for" in found.artifact.options else []
        rows += _converted(found.artifact)
        rows += [("parameters", _scaled(found.num_parameters or 0))]
        rows += [("MACs an image", _scaled(found.macs or 0))]
        rows += [("runs in", runtimes)] if (runtimes := _runtimes(found.format)) else []
        rows += [*_said(found.artifact), *_without_vnni(found.artifact), *_compiled(found.artifact)]
    if found.graph is not None:
        rows += _held(found.graph)
    if found.accelerators is not None:
        rows += _left_to_the_cpu(found.accelerators, 0 if found.graph is None else sum(found.graph.operators.values()))
    fates = {operator.fate: None for operator in found.on_cuda or ()}
    for fate in fates:
        those = [f"{operator.count} {operator.operator}" for operator in found.on_cuda or () if operator.fate == fate]
        rows.append(("ONNX Runtime on CUDA", f"{', '.join(those)}: {fate}"))
    # A file can say anything; to a terminal it may not.
    return [
        (name, "".join(character if character.isprintable() else "?" for character in value)) for name, value in rows
    ]


def _converted(artifact: Artifact) -> list[tuple[str, str]]:
    from vit_deploy.core.conversion import Conversion

    found = Conversion.of(artifact)
    return [] if found is None else [("converted by", f"{found.converter} ({found.install}): see artifact.json")]


def _runtimes(format: str) -> str:
    from vit_deploy.core.format_table import FORMATS
    from vit_deploy.runtimes import RUNTIMES

    names = FORMATS[format].runtime_names if format in FORMATS else ()
    return ", ".join(f"{name} (not installed here)" if RUNTIMES[name].missing() else name for name in names)


def _scaled(count: int) -> str:
    power = next((power for power in (9, 6, 3) if count >= 10**power), 0)
    return f"{count / 10**power:.2f} {'kMG'[power // 3 - 1]}" if power else str(count)


def _said(artifact: Artifact) -> list[tuple[str, str]]:
    """What was recorded when the model was made."""
    from vit_deploy.core.config import in_words
    from vit_deploy.core.image_sizes import listed
    from vit_deploy.core.origin import ORIGIN

    config, preprocess, spec = artifact.config.to_dict(), artifact.preprocess, artifact.input
    size = "x".join(map(str, preprocess.input_size or artifact.config.image_size))
    resize = size if preprocess.resize is None else preprocess.resize
    resize = f"to cover {resize}" if preprocess.keep_aspect else resize
    read = f", top left {'x'.join(map(str, artifact.config.image_size))}" if preprocess.input_size else ""
    inside = "inside the model" if spec.preprocessing_inside else "to be done before"
    shape = ", ".join("?" if side is None else str(side) for side in spec.shape)
    sizes = listed(artifact.sizes)
    if artifact.sizes and artifact.is_for_any_size:
        sizes = f"any multiple of {in_words(artifact.config.patch_size)}; proven at {sizes}"
    elif artifact.sizes:
        sizes = ", ".join(f"{size} ({size.signature})" for size in artifact.sizes)
    rows = [
        ("config", ", ".join(f"{name}={value}" for name, value in config.items())),
        ("input", f"{spec.name} {spec.dtype} ({shape}) {spec.layout}"),
        *([("sizes", sizes)] if sizes else []),
        *[("output", f"{name} {shape} an image") for name, shape in _outputs(artifact)],
        (
            "preprocessing",
            f"resize {resize} {preprocess.interpolation}{', crop ' + size if preprocess.crop else ''}{read}; mean "
            f"{preprocess.mean}, std {preprocess.std} of 0..1, {inside}",
        ),
        ("labels", _labels(artifact.labels)),
        ("weights digest", artifact.weights_digest),
    ]
    rows += _origin(artifact)
    rows += [
        ("done to it", f"{step.action} {', '.join(_facts(step.facts))}".strip())
        for step in artifact.provenance
        if step.action != ORIGIN
    ]
    made = ", ".join(f"{name} {version}" for name, version in artifact.producer.items())
    return [*rows, ("made with", made)] if made else rows


def _labels(labels: Sequence[str]) -> str:
    more = " …" if len(labels) > SHOWN else ""
    return f"{len(labels)}: {', '.join(labels[:SHOWN])}{more}" if labels else "none"


def _facts(facts: Mapping[str, object], levels: int = LEVELS) -> list[str]:
    """Facts as `name=value`, without those that say nothing."""
    return [f"{name}={_plain(value, levels)}" for name, value in facts.items() if value not in (None, "", [], (), {})]


def _plain(value: object, levels: int) -> str:
    """A value in words; what is nested deeper than this many levels is in somebody else's file alone."""
    if isinstance(value, Mapping) and levels:
        return f"({', '.join(_facts(value, levels - 1))})"
    if isinstance(value, list | tuple) and levels:
        return f"[{', '.join(_plain(item, levels - 1) for item in value)}]"
    return str(value)


def _outputs(artifact: Artifact) -> list[tuple[str, str]]:
    named = [(output.name, artifact.open_output_shape(output)) for output in artifact.named_outputs]
    found = named or [(artifact.config.output_name, artifact.open_output_shape())]
    return [(name, _sides(shape)) for name, shape in found]


def _sides(shape: tuple[int | None, ...]) -> str:
    """A shape, with a question mark for each open side, as that of the input has."""
    sides = ["?" if side is None else str(side) for side in shape]
    return f"({', '.join(sides)}{',' * (len(sides) == 1)})"


def _origin(artifact: Artifact) -> list[tuple[str, str]]:
    """Where the model comes from, and its licence."""
    from vit_deploy.core.origin import origin_in

    origin = origin_in(artifact.provenance)
    if origin is None:
        return []
    source = [("source", f"{origin.source}, {origin.repository} at {origin.commit} ({origin.url})")]
    unread = [("not run", ", ".join(origin.not_run))] if origin.not_run else []
    licence = " ".join(filter(None, (origin.licence or "not stated", origin.licence_link)))
    return [*(source if origin.repository else ()), ("licence", licence), *unread]


def _without_vnni(artifact: Artifact) -> list[tuple[str, str]]:
    """Whether products of 8 bits are right on every x86 processor, where there are any."""
    from vit_deploy.core.saturation import FIX, has_products, may_saturate

    if not has_products(artifact):
        return []
    fits = "exact: no pair of products saturates"
    return [("x86 without VNNI", f"may saturate: {FIX}" if may_saturate(artifact) else fits)]


def _compiled(artifact: Artifact) -> list[tuple[str, str]]:
    """What a compiler made for an accelerator."""
    from vit_deploy.core.compiled import Compiled

    compiled = Compiled.of(artifact)
    if compiled is None:
        return []
    settings = ", ".join(f"{name}={value}" for name, value in compiled.settings.items())
    told = ", ".join(f"{name} {value:,.10g}" for name, value in compiled.estimates.items())
    left = "; ".join(f"{fallback.count} {fallback.operator} ({fallback.reason})" for fallback in compiled.left)
    return [
        ("compiled for", f"{compiled.target} by {compiled.compiler} {compiled.version}: {compiled.file}"),
        *([("compiled with", settings)] if settings else []),
        *([] if compiled.runs_on_cpu else [("operators on the NPU", f"{compiled.on_npu} of {compiled.operators}")]),
        *([] if compiled.runs_on_cpu else [("left to the CPU", left or "nothing")]),
        *([("its compiler's estimates", told)] if told else []),
        *([("proof of what was compiled", compiled.proof)] if compiled.proof else []),
    ]


def _held(graph: Graph) -> list[tuple[str, str]]:
    """What the model file itself holds."""
    operators = ", ".join(f"{count} {name}" for name, count in graph.operators.items())
    counted = [("operators", f"{sum(graph.operators.values())} in all: {operators}")] if operators else []
    return [
        *(("graph input", str(tensor)) for tensor in graph.inputs),
        *(("graph output", str(output)) for output in graph.outputs),
        *counted,
        *((name, str(value)) for name, value in graph.facts.items()),
        ("metadata", ", ".join(graph.metadata) or "none"),
    ]


def _left_to_the_cpu(accelerators: Mapping[str, Verdict], operators: int) -> list[tuple[str, str]]:
    """What integer accelerators would not compute."""
    from vit_deploy.formats.accelerators import ACCELERATORS

    rows = []
    for key, verdict in accelerators.items():
        found = verdict.left
        said = [f"{fallback.count} {fallback.operator} ({fallback.reason})" for fallback in found]
        if sum(fallback.count for fallback in found) == operators and len({entry.reason for entry in found}) == 1:
            said = [f"everything ({found[0].reason})"]
        device = ACCELERATORS.get(key)
        remarks = [device.remark] if found and device is not None and device.remark else []
        name = key if device is None else device.name
        by = f"rules of {verdict.tool} {verdict.version}, read {verdict.checked}" if verdict.checked else ""
        by = by or f"{verdict.tool} {verdict.version} itself"
        rows.append((f"left to the CPU by {name}", f"{'; '.join([*said, *remarks]) or 'nothing'} [{by}]"))
    return rows
