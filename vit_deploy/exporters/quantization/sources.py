"""The fp32 artifacts of a folder, each quantized in those of the precisions that its format has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import FP32, Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import bundles_in, read_artifact
from vit_deploy.core.staging import check_targets
from vit_deploy.errors import ArtifactError, ConfigError, did_you_mean
from vit_deploy.exporters.plan import why_missing
from vit_deploy.exporters.publish import Progress, failed_name, telling_what_is_there
from vit_deploy.exporters.quantization import QUANTIZERS, QuantizeOptions
from vit_deploy.exporters.quantization.made import Made
from vit_deploy.exporters.quantization.pipeline import attempt
from vit_deploy.exporters.quantization.recipes import recipes_of

Work = tuple[Artifact, tuple[str, ...]]
"""An fp32 artifact, and the precisions to make of it."""


def plain_bundles(path: Path, precisions: Sequence[str]) -> tuple[list[Work], list[str]]:
    """What a path gives to quantize, and in words which combinations do not exist.

    Args:
        path: an artifact, of any precision; or a folder, of whose artifacts those in fp32 are taken.
        precisions: the requested precisions.

    Raises:
        ArtifactError: no artifact, one that was changed, or a folder without one in fp32 that can be quantized.
        ConfigError: no format in the folder has any of the precisions.
    """
    inside = bundles_in(path)
    if not inside:
        return work_of(read_artifact(path), precisions)
    found = [read_artifact(folder) for folder in inside]
    plain = [artifact for artifact in found if artifact.precision == FP32 and artifact.format in QUANTIZERS]
    if not plain:
        raise ArtifactError(
            f"{path} holds nothing to quantize: {', '.join(folder.name for folder in inside)}",
            fix=f"give a folder with {' or '.join(f'{format}-{FP32}' for format in QUANTIZERS)}",
        )
    known = {precision for format in QUANTIZERS for precision in FORMATS[format].precisions_for(Target.CPU)}
    if unknown := [precision for precision in precisions if precision not in known]:
        raise ConfigError(f"unknown precision {unknown[0]!r}", fix=did_you_mean(unknown[0], sorted(known)))
    works = [
        (artifact, tuple(one for one in precisions if one in FORMATS[artifact.format].precisions_for(Target.CPU)))
        for artifact in plain
    ]
    skipped = [
        f"{artifact.format}-{one}: {why_missing(FORMATS[artifact.format], one, Target.CPU)}"
        for artifact, own in works
        for one in precisions
        if one not in own
    ]
    if not any(own for _, own in works):
        formats = ", ".join(artifact.format for artifact in plain)
        raise ConfigError(f"{formats} has none of the precisions {', '.join(precisions)}", fix="ask for another one")
    return [(artifact, own) for artifact, own in works if own], skipped


def work_of(artifact: Artifact, precisions: Sequence[str]) -> tuple[list[Work], list[str]]:
    """What one artifact gives to quantize, and in words which of the precisions its format does not have.

    Precisions that no format has, and those of which it has none, are left in: their error says what there is.
    """
    format, target = FORMATS[artifact.format], artifact.options.get("for", Target.CPU)
    own = tuple(one for one in precisions if one in recipes_of(artifact.format, target))
    gaps = [one for one in precisions if one not in own]
    made = {one for name in QUANTIZERS for one in FORMATS[name].every_precision} - {FP32}
    if not own or not made.issuperset(gaps):
        return [(artifact, tuple(precisions))], []
    return [(artifact, own)], [f"{artifact.format}-{gap}: {why_missing(format, gap, target)}" for gap in gaps]


def quantize_each(
    works: Sequence[Work],
    directory: Path,
    options: QuantizeOptions,
    *,
    force: bool = False,
    keep_failed: bool = False,
    progress: Progress = lambda doing: None,
) -> Made:
    """`pipeline.quantize` of several artifacts; all targets are checked before the first is made.

    Args:
        works: the result of `plain_bundles`.
        directory: the folder in which the artifacts are written.
        options: the options of all of them.
        force: replace artifacts that are there.
        keep_failed: publish those that fail their proof as `<name>.failed`.
        progress: called with what is being done.

    Raises:
        VitDeployError: as `quantize`, with what was published before it; that a precision or all of a format's fail
            stops none of the others.
    """
    if len(works) > 1:
        names = [directory / f"{source.format}-{one}" for source, own in works for one in own]
        check_targets([*names, *map(failed_name, names)] if keep_failed else names, force=force)
    made = Made([])
    for source, own in works:
        with telling_what_is_there(made.results):
            more = attempt(source, directory, own, options, force=force, keep_failed=keep_failed, progress=progress)
        made = made.also(more)
    return made.unless_all_failed()
