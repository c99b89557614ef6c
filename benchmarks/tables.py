"""How do the stored results read as tables in the README beside them?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Result, latency_ratio, p50_ms, targets
from benchmarks.ways import WAYS

BEGIN, END = "<!-- results: written by python -m benchmarks -->", "<!-- end of results -->"
ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
OURS = {"onnxruntime": "vit-deploy-onnx", "litert": "vit-deploy-tflite"}


def read_results(folder: Path) -> dict[str, Result]:
    """All stored results by the name of their size."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return dict(sorted(results.items(), key=lambda item: item[1]["parameters"]))


def rewrite(readme: Path, folder: Path) -> None:
    """Put the tables of the results in `folder` between the markers of `readme`."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    body = render(read_results(folder))
    readme.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}", encoding="utf-8")


def render(results: Mapping[str, Result]) -> str:
    """Targets, then two tables a size."""
    parts = ["### Targets", _targets(results)]
    for name, result in results.items():
        parts += [f"### {name}", _host(result), _exports(result), _latencies(result), *_silences(result)]
    return "\n\n".join(parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; all columns but the first are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _targets(results: Mapping[str, Result]) -> str:
    verdicts = {True: "met", False: "**missed**", None: "not measured"}
    return table(
        ("target", "limit", "measured", ""),
        [
            (each.text, f"{'≥' if each.at_least else '≤'} {each.limit:g}", _number(each.ratio, 2), verdicts[each.met])
            for each in targets(results)
        ],
    )


def _host(result: Result) -> str:
    host, versions = result["host"], result["versions"]
    loads = [load for entry in result["latency"] for load in entry.get("load_1m", ())]
    load = f", load average {min(loads):.1f} to {max(loads):.1f} while timing (the timed process included)"
    return (
        f"{result['started']}, {host['cpu']}, {host['cores']:g} cores, Python {host['python']}"
        f"{load if loads else ''}. " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    )


def _exports(result: Result) -> str:
    rows = []
    for entry in result["exports"]:
        way, runs = WAYS[entry["way"]], entry["runs"]
        if not runs:
            rows.append((f"{way.label} ({way.suffix})", "fails", "-", "-", "-", "-"))
            continue
        own = [run["wall_s"] - run["proof_s"] for run in runs]
        proof = median(run["proof_s"] for run in runs)
        rows.append(
            (
                f"{way.label} ({way.suffix})",
                _number(median(own), 1),
                f"{min(own):.1f} to {max(own):.1f}",
                _number(proof, 1) if way.ours else "no proof",
                _number(max(run["peak_rss_mb"] for run in runs), 0),
                _number(None if entry["bytes"] is None else entry["bytes"] / 1e6, 1),
            )
        )
    return table(("export, as a whole process", "s", "range", "proof, s more", "peak MB", "file MB"), rows)


def _latencies(result: Result) -> str:
    rows = []
    for entry in sorted(result["latency"], key=lambda entry: (entry["runtime"] != "onnxruntime", p50_ms(entry) or 1e9)):
        way, ours = WAYS[entry["way"]], OURS[entry["runtime"]]
        if entry["error"]:
            rows.append((way.label, ENGINES[way.runtime], "does not load", "-", "-", "-"))
            continue
        rows.append(
            (
                way.label,
                ENGINES[way.runtime],
                _number(p50_ms(entry), 2),
                _number(latency_ratio(result, entry["way"], ours), 2),
                _number(entry["load_ms"], 0),
                _number(entry["peak_rss_mb"], 0),
            )
        )
    return table(("file, one image a call", "engine", "best round's p50 ms", "over ours", "load ms", "peak MB"), rows)


def _reason(error: str) -> str:
    """The last line, without the temporary folder and the engine's own module path."""
    line = error.splitlines()[-1].strip()
    return re.sub(r"\S*/vit-deploy-benchmarks-[^/]*/", "", line).rpartition("[ONNXRuntimeError] : ")[2][:240]


def _silences(result: Result) -> list[str]:
    errors: list[dict[str, Any]] = [entry for entry in (*result["exports"], *result["latency"]) if entry["error"]]
    lines = [f"- {WAYS[entry['way']].label}: `{_reason(entry['error'])}`" for entry in errors]
    lines += [f"- {WAYS[name].label}: skipped, {', '.join(names)} not installed" for name, names in result["skipped"]]
    return ["\n".join(lines)] if lines else []
