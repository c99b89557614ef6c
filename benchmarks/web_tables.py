"""Tables, targets and recommendation of files in a browser."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

from benchmarks.figures import p50_ms
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target
from benchmarks.web import WEB
from vit_deploy.exporters.quantization.recipes import Activations, recipes_of

SHOWN = "tiny"
ENGINES = {"onnx": "ONNX Runtime Web", "tflite": "LiteRT.js"}
SMALL = 0.5  # of fp32's download, that a file has at most which is recommended first
NEAR = 1.1  # times the least time, within which the file comes first that is simpler to make


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """What the recommendation rests on."""
    result = results.get(SHOWN)
    for format, title in ENGINES.items():
        yield Target(
            f"ViT-Tiny int8 in {title}: processor time a call, over that of fp32",
            1.0,
            None if result is None else _over(result, f"{format}-int8", f"{format}-fp32"),
        )
    yield Target(
        "ViT-Tiny fp32: processor time a call in LiteRT.js, over that in ONNX Runtime Web",
        1.0,
        None if result is None else _over(result, "tflite-fp32", "onnx-fp32"),
    )


def render(results: Mapping[str, Result]) -> str:
    """A table a size."""
    return "\n\n".join(
        _section(name, result) if result["calls"] else _section_of_large(name, result)
        for name, result in results.items()
    )


def summary(result: Result) -> str:
    """For the README: what each file takes in a browser, and which to take."""
    rows = [
        (f"`{file['file']}`", *_figures(result, file)[:3], number(_over(result, file["file"], _fp32(file["file"])), 2))
        for file in result["files"]
    ]
    head = ("ViT-Tiny in a browser", "verdict", "download MB", "processor ms a call", "over fp32")
    host = result["host"]
    versions = ", ".join(f"{package['name']} {package['version']}" for package in result["packages"])
    where = (
        f"One image on one thread of WebAssembly ({result['browser']}, {versions}; {host['cpu']}): time of the "
        "processor, download compressed with gzip."
    )
    return "\n\n".join((table(head, rows), f"{recommendation(result)} {where}"))


def recommendation(result: Result) -> str:
    """Which file to take first, with images to calibrate with and without, and which among those of fp32."""
    sizes = {file["file"]: file["gzip_bytes"] for file in result["files"] if file["verdict"] == "same"}
    times = {name: cpu for name in sizes if (cpu := _cpu_ms(result, name, WEB)) is not None}
    small = {name: cpu for name, cpu in times.items() if sizes[name] <= SMALL * sizes.get(_fp32(name), 0)}
    whole = {name: cpu for name, cpu in times.items() if name == _fp32(name)}
    if not small or not whole:
        return "Not measured."

    def costs(name: str) -> str:
        share, time = sizes[name] / sizes[_fp32(name)], times[name] / times[_fp32(name)]
        return f"{share:.2f} of the download and {time:.2f} of the time of fp32"

    first = _first_of(small)
    said = f"Take **`{first}`** first: {costs(first)}."
    alike = {name: cpu for name, cpu in small.items() if _fp32(name) == _fp32(first)}  # shares of the same fp32
    others = {name: cpu for name, cpu in alike.items() if not _is_calibrated(name)}
    if _is_calibrated(first) and others:
        other = _first_of(others)
        said = (
            f"With images to calibrate with, take **`{first}`** first ({costs(first)}), without any **`{other}`** "
            f"({costs(other)})."
        )
    return f"{said} The fastest fp32 is `{min(whole, key=whole.__getitem__)}`."


def _first_of(times: Mapping[str, float]) -> str:
    return next(name for name, cpu in times.items() if cpu <= NEAR * min(times.values()))


def _is_calibrated(name: str) -> bool:
    """Whether a file has ranges that are measured on images."""
    format, _, precision = name.partition("-")
    recipe = recipes_of(format).get(precision)
    return recipe is not None and recipe.activations is Activations.STATIC


def _section(name: str, result: Result) -> str:
    head = ("file", "verdict", "download MB", "web: processor ms", "native: processor ms", "web over native")
    head = (*head, "web: median ms", "load ms", "peak MB")
    rows = [(file["file"], *_figures(result, file)) for file in result["files"]]
    why = [f"{file['file']}: {file['error']}" for file in result["files"] if file["error"]]
    return "\n\n".join((f"### {name} in a browser", _about(result), table(head, rows), *why, recommendation(result)))


def _about(result: Result) -> str:
    versions = [f"{package['name']} {package['version']} ({package['licence']})" for package in result["packages"]]
    return f"{facts_line(result)} {', '.join([result['browser'], *versions])}."


def _section_of_large(name: str, result: Result) -> str:
    """Of a model whose weights lie beside its file."""
    head = (
        "file",
        "weights beside it, MB",
        "verdict",
        "largest difference",
        "tolerance",
        "load s",
        "call s",
        "peak MB",
    )
    rows = [
        (
            *(file["file"], number(file["beside_bytes"] / 1e6, 0), file["verdict"]),
            *(f"{file[name]:.1e}" if name in file else "-" for name in ("max_abs", "tolerance")),
            *(number(file[name] / 1e3 if name in file else None, 1) for name in ("load_ms", "call_ms")),
            number(file.get("peak_mb"), 0),
        )
        for file in result["files"]
    ]
    why = [f"{file['file']}: {file['error']}" for file in result["files"] if file["error"]]
    return "\n\n".join((f"### {name} in a browser", _about(result), table(head, rows), *why))


def _figures(result: Result, file: Mapping[str, Any]) -> tuple[str, ...]:
    name = file["file"]
    web, native = _cpu_ms(result, name, WEB), _cpu_ms(result, name, None)
    entry = _entry(result, name, WEB)
    return (
        file["verdict"],
        number(file["gzip_bytes"] / 1e6, 1),
        number(web, 1),
        number(native, 1),
        number(web / native if web and native else None, 1),
        number(p50_ms({**entry, "error": None}) if entry else None, 1),
        number(entry.get("load_ms"), 0),
        number(entry.get("peak_rss_mb"), 0),
    )


def _entry(result: Result, name: str, runtime: str | None) -> Mapping[str, Any]:
    """The calls of a file in the browser; with None in its native engine."""
    return next(
        (
            call
            for call in result["calls"]
            if call["file"] == name and (call["runtime"] == runtime if runtime else call["runtime"] != WEB)
        ),
        {},
    )


def _cpu_ms(result: Result, name: str, runtime: str | None) -> float | None:
    """The median over the rounds of the processor's time a call, in milliseconds."""
    entry = _entry(result, name, runtime)
    rounds = zip(entry.get("processor_s", ()), entry.get("samples_ns", ()), strict=True)
    found = [1e3 * used / len(samples) for used, samples in rounds]
    return float(median(found)) if found else None


def _over(result: Result, name: str, other: str) -> float | None:
    mine, others = _cpu_ms(result, name, WEB), _cpu_ms(result, other, WEB)
    return mine / others if mine and others else None


def _fp32(name: str) -> str:
    return f"{name.partition('-')[0]}-fp32"
