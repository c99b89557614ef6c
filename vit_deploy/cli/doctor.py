"""`vit-deploy doctor`: which engines are here, and do they get along?"""

from __future__ import annotations

from typing import Annotated

import typer

from vit_deploy.cli.options import Json, Quiet, Verbose


def doctor(
    gpu: Annotated[bool, typer.Option("--gpu", help="Ask TensorFlow for its GPUs too, which takes seconds.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Show engines, providers and CPU features, and conflicts with their fixes; exits with 1 if there are any."""
    from vit_deploy.cli.output import Output
    from vit_deploy.diagnosis import diagnose

    out = Output("doctor", as_json=json, quiet=quiet)
    with out.progress() as progress:
        progress("asking the engines")
        found = diagnose(gpu=gpu)
    rows = [
        ("machine", f"{found.host.cpu}, {found.host.cores:g} cores, {found.host.architecture}"),
        ("CPU features", ", ".join(name for name, there in found.features.items() if there) or "unknown"),
        ("Python", f"{found.host.python} on {found.host.os}"),
    ]
    for engine, versions in found.engines.items():
        there = ", ".join(
            version if name == engine.name else f"{version} ({name})" for name, version in versions.items()
        )
        rows.append((engine.name, there or f"missing -> {engine.install}"))
    if found.providers is not None:
        rows.append(("ONNX Runtime runs on", ", ".join(found.providers)))
    if found.openvino is not None:
        rows.append(("OpenVINO computes in", ", ".join(found.openvino)))
    if found.gpus is not None:
        rows.append(("TensorFlow's GPUs", ", ".join(found.gpus) or "none"))
    for index, conflict in enumerate(found.conflicts, 1):
        rows.append((f"conflict {index}", f"{conflict.problem}\nfix: {conflict.fix}"))
    ok = not found.conflicts
    rows.append(("verdict", "no conflict" if ok else f"{len(found.conflicts)} to be resolved"))
    return out.finish([found.to_dict()], ok=ok, columns=("what", "found"), rows=rows)
