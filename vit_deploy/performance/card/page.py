"""The text of a model card."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vit_deploy.core import markdown
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.conversion import Conversion
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.host import Host
from vit_deploy.core.quantities import megabytes, milliseconds
from vit_deploy.formats.snippet import snippet
from vit_deploy.performance.card.front_matter import front_matter, licences_of, origins_of
from vit_deploy.performance.card.measured import Subject
from vit_deploy.verification.tolerances import LIMITS

DASH = "-"
SAME = ("cpu", "architecture", "cores", "os")  # by which a machine is told from others
EXTRAS = {"cuda": "gpu", "tensorrt": "tensorrt"}  # that run what files of several targets were made for
RANDOM = "random"  # the step of a model whose weights were drawn


def page(subjects: Sequence[Subject], title: str, repository: str = "") -> str:
    """A card: entries, files, proof, accuracy, latency, how to run it, limits.

    Args:
        subjects: artifacts with what was measured of them.
        title: heading.
        repository: "owner/name" that it goes to; empty where that is not known.
    """
    parts = [
        [f"# {_plain(title)}", "", *_introduction(subjects)],
        ["## Files", "", *_files(subjects)],
        ["## Proof", "", *_proof(subjects)],
        *([["## Accuracy", "", *_accuracy(subjects)]] if any(subject.accuracies for subject in subjects) else []),
        *([["## Latency", "", *_latency(subjects)]] if any(subject.latencies for subject in subjects) else []),
        ["## Run it", "", *_run(subjects, repository)],
        *([["## Convert it", "", *converted]] if (converted := _converted(subjects)) else []),
        ["## Limits", "", *(f"- {limit}" for limit in _limits(subjects))],
    ]
    return front_matter(subjects) + "\n" + "\n".join("\n".join([*part, ""]) for part in parts)


def _introduction(subjects: Sequence[Subject]) -> Iterator[str]:
    titles = dict.fromkeys(FORMATS[subject.artifact.format].title for subject in subjects)
    origins = {origin.repository: origin for origin in origins_of(subjects) if origin.repository}
    versions = dict.fromkeys(subject.artifact.producer.get("vit-deploy", "") for subject in subjects)
    made = f"A Vision Transformer as {' and '.join(titles)}, made by vit-deploy {' and '.join(versions)}".rstrip()
    if not origins:
        yield f"{made}. Where its weights come from is not recorded."
    for origin in origins.values():
        link = f"[{_plain(origin.repository)}]({origin.url})" if _is_address(origin.url) else _plain(origin.repository)
        licence = f"whose licence is {_plain(origin.licence)}" if origin.licence else "which states no licence"
        yield f"{made} of {link} at commit `{origin.commit}`, {licence}."


def _files(subjects: Sequence[Subject]) -> list[str]:
    rows = []
    for subject in subjects:
        artifact = subject.artifact
        size = "x".join(map(str, artifact.config.image_size))
        batch = "any" if artifact.input.batch is None else str(artifact.input.batch)
        name = f"`{subject.folder}/{artifact.model_path.name}`"
        made_for = f" for {artifact.options['for']}" if "for" in artifact.options else ""
        cells = (artifact.precision, megabytes(artifact.model_bytes), size, artifact.input.dtype, batch)
        format = f"{FORMATS[artifact.format].title}{made_for}"
        rows.append((name, _plain(format), *cells, f"`{artifact.weights_digest[:12]}`"))
    columns = ("file", "format", "precision", "size", "image", "input", "batch", "weights")
    inside = (
        "Each folder has the model, `artifact.json` (config, preprocessing, labels, digests, versions) and `golden.npz`"
    )
    return [*markdown.table(columns, rows), "", f"{inside} (test inputs and what a float64 reference answers to them)."]


def _proof(subjects: Sequence[Subject]) -> list[str]:
    rows = [
        (
            f"`{subject.folder}`",
            _plain(proof.where) or DASH,
            _plain(proof.verdict),
            _figure(proof.max_abs),
            _limits_of(proof.tolerance),
            DASH if proof.cosine is None else f"{proof.cosine:.7f}",
            DASH if proof.checks is None else f"{proof.checks[0]} of {proof.checks[1]}",
        )
        for subject in subjects
        for proof in subject.proofs
    ]
    if not rows:
        none = "No comparison with the reference is among the results that this card was made of."
        return [f"{none} `vit-deploy verify` makes it from what is in the folders."]
    told = "The files were compared with a float64 reference of the same network."
    told = f"{told} `vit-deploy verify` repeats that on any machine, from what is in the folders."
    columns = ("artifact", "engine", "verdict", "largest difference", "tolerance", "cosine", "checks")
    return [told, "", *markdown.table(columns, rows, numeric=(3, 5, 6))]


def _accuracy(subjects: Sequence[Subject]) -> list[str]:
    rows = [
        (
            f"`{subject.folder}`",
            _plain(accuracy.where) or DASH,
            str(accuracy.images),
            _percent(accuracy.top1),
            _percent(accuracy.top5),
            DASH
            if accuracy.reference == subject.folder
            else _percent(accuracy.agreement) + (f" with `{accuracy.reference}`" if accuracy.reference else ""),
        )
        for subject in subjects
        for accuracy in subject.accuracies
    ]
    return markdown.table(("artifact", "engine", "images", "top-1", "top-5", "agreement"), rows, numeric=(2, 3, 4))


def _latency(subjects: Sequence[Subject]) -> list[str]:
    timed = [(subject, latency) for subject in subjects for latency in subject.latencies]
    machines = {_identity(latency.host): latency.host for _, latency in timed}
    lines: list[str] = []
    for identity, host in machines.items():
        rows = [
            (
                f"`{artifact.folder}`",
                _plain(f"{latency.case.runtime} ({latency.provider})"),
                str(latency.case.batch),
                str(latency.case.threads or DASH),
                milliseconds(latency.p50_ms),
                milliseconds(latency.p90_ms),
                f"{latency.throughput_per_s:.1f}",
                DASH if latency.peak_rss_mb is None else f"{latency.peak_rss_mb:.0f}",
                "unsteady" if latency.unsteady else "",
            )
            for artifact, latency in timed
            if _identity(latency.host) == identity
        ]
        columns = ("artifact", "engine", "batch", "threads", "p50 ms", "p90 ms", "images/s", "peak MB", "")
        lines += [f"On {_plain(host.cpu)}, {host.cores_in_words}, {_plain(host.os)}, Python {_plain(host.python)}:", ""]
        lines += [*markdown.table(columns, rows, numeric=range(2, 8)), ""]
    return lines[:-1]


def _run(subjects: Sequence[Subject], repository: str) -> list[str]:
    first = subjects[0]
    relative = dataclasses.replace(first.artifact, directory=Path(first.folder))
    get = f"`hf download {repository} --local-dir .` fetches the files" if repository else "Fetch the files"
    extra = _extra(first.artifact)
    install = f'`pip install "vit-deploy[{extra}]"`' if extra else "`pip install vit-deploy`"
    lines = [
        f"{get}; after {install}, this runs `{first.folder}` on a photograph:",
        "",
        "```python",
        *program(relative),
        "```",
    ]
    if FORMATS[relative.format].snippet is None:
        return lines
    return [
        *lines,
        "",
        "<details><summary>With its plain engine, and nothing of vit-deploy</summary>",
        "",
        "```python",
        *snippet(relative).splitlines(),
        "```",
        "",
        "`vit-deploy inspect FOLDER --snippet` prints the same for the others.",
        "</details>",
    ]


def _converted(subjects: Sequence[Subject]) -> list[str]:
    """How makers' converters take what is made for them."""
    lines: list[str] = []
    for subject in subjects:
        if (found := Conversion.of(subject.artifact)) is not None:
            told = f"`{subject.folder}` is for {_plain(found.converter)} ({_plain(found.install)}). In its folder:"
            runs = re.findall("`+", found.command)  # a manifest can say anything; none of it ends the block
            fence = "`" * max([3, *(len(run) + 1 for run in runs)])
            lines += ["", told, "", f"{fence}bash", *found.command.splitlines(), fence]
    return lines[1:]


def program(artifact: Artifact) -> list[str]:
    """A program of ten lines at most that runs an artifact of any format on an image file, its only argument."""
    folder, provider = repr(str(artifact.directory)), artifact.options.get("for")
    asked = f", provider={provider!r}" if provider in EXTRAS else ""
    if artifact.config.include_top:
        return [
            "import sys",
            "",
            "import vit_deploy",
            "",
            f"[prediction] = vit_deploy.predict({folder}, sys.argv[1]{asked})",
            "for seen in prediction.top:",
            '    print(f"{seen.probability:.4f} {seen.label or seen.index}")',
        ]
    return [
        "import sys",
        "",
        "import vit_deploy",
        "",
        f"with vit_deploy.session({folder}{asked}) as session:",
        f"    features = session.infer(vit_deploy.read_images({folder}, sys.argv[1]))",
        'print("features of shape", features.shape)',
    ]


def _extra(artifact: Artifact) -> str:
    """What of vit-deploy has to be installed to run it; empty where another distribution brings its engine."""
    made_for = str(artifact.options.get("for", ""))
    return EXTRAS.get(made_for) or FORMATS[artifact.format].runtimes[0].engine.extra


def _limits(subjects: Sequence[Subject]) -> Iterator[str]:
    """What nobody has measured, or what narrows the use of the files."""
    artifacts = [subject.artifact for subject in subjects]
    sizes = {"x".join(map(str, artifact.config.image_size)) for artifact in artifacts}
    yield f"Images are {' or '.join(sorted(sizes))} pixels (height x width); other sizes are resized to that."
    for artifact in artifacts:
        if artifact.sizes:
            proven = ", ".join(map(str, artifact.sizes))
            words = "takes images of any size, and was proven at" if artifact.is_for_any_size else "is for images of"
            yield f"`{artifact.name}` {words} {proven} pixels."
    if not licences_of(subjects):
        yield "The licence of the weights is not recorded: ask whoever made them before you use or share the files."
    if any(step.action == RANDOM for artifact in artifacts for step in artifact.provenance):
        yield "The weights are random: good for sizes and timings, not for answers."
    for what, has in (("Accuracy", "accuracies"), ("Latency", "latencies"), ("Parity", "proofs")):
        lacking = [f"`{subject.folder}`" for subject in subjects if not getattr(subject, has)]
        if lacking:
            yield f"{what} was not measured of {', '.join(lacking)}."
    if failed := [f"`{subject.folder}`" for subject in subjects if any(not proof.ok for proof in subject.proofs)]:
        yield f"A comparison with the reference **failed** for {', '.join(failed)}."
    if any(latency.unsteady for subject in subjects for latency in subject.latencies):
        yield "Latencies that are marked as unsteady were measured while the machine did other things too."
    if any(subject.accuracies for subject in subjects):
        yield "Accuracy is that on the images that were given, which need not be like yours."
    if any(subject.latencies for subject in subjects):
        yield "Latency is that of the machines above alone."
    if not any(artifact.labels for artifact in artifacts) and any(
        artifact.config.include_top for artifact in artifacts
    ):
        yield "Names of the classes are not recorded."


def _identity(host: Host) -> tuple[object, ...]:
    return tuple(getattr(host, name) for name in SAME)


def _figure(value: float | None) -> str:
    return DASH if value is None else f"{value:.1e}"


def _limits_of(tolerance: Mapping[str, float]) -> str:
    """What has to hold, in words."""
    held = []
    for name, value in tolerance.items():
        known = LIMITS.get(name)
        if known is None:
            held.append(f"{_plain(name)} {value:.2g}")
        else:
            held.append(f"{known.words} {'at most' if known.at_most else 'at least'} {value:.2g}{known.unit}")
    return ", ".join(held) or DASH


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.2f} %"


def _is_address(text: str) -> bool:
    return re.fullmatch(r"https?://[\w.:/@%~+-]+", text, re.ASCII) is not None


def _plain(text: str) -> str:
    return markdown.escaped(text)
