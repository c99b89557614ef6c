"""What files in a browser are recommended by what was measured of them."""

from __future__ import annotations

from benchmarks import web_tables
from benchmarks.sizes import SIZES
from benchmarks.web_large import is_large

TIMES = {  # milliseconds of the processor a call: in the browser, natively
    "onnx-fp32": (60.0, 15.0),
    "onnx-int8": (40.0, 8.0),
    "tflite-fp32": (36.0, 12.0),
    "tflite-int8": (34.0, 6.0),
    "tflite-int8-static": (33.0, 5.0),
    "tflite-int4": (160.0, 7.0),
}
MEGABYTES = {"fp32": 20, "int8": 5, "int8-static": 5, "int4": 3, "int8-full": 5}


def result(**verdicts):
    names = [*TIMES, "tflite-int8-full"]
    files = [
        {"file": name, "verdict": verdicts.get(name.replace("-", "_"), "same"), "error": None, "bytes": 1}
        | {"gzip_bytes": MEGABYTES[name.partition("-")[2]] * 10**6}
        for name in names
    ]
    files[-1] |= {"verdict": "refused", "error": "no 8-bit inputs"}
    calls = []
    for name, (web, native) in TIMES.items():
        engine = "onnxruntime" if name.startswith("onnx") else "litert"
        for runtime, cpu in (("web", web), (engine, native)):
            one = {"file": name, "runtime": runtime, "load_ms": 1.0, "peak_rss_mb": 300.0}
            calls.append(one | {"samples_ns": [[10**7] * 4] * 3, "processor_s": [4 * cpu / 1e3] * 3})
    return {"files": files, "calls": calls, "packages": [], "browser": "Chromium 1", "host": {"cpu": "a processor"}}


def test_the_simplest_of_the_fast_small_files_comes_first_and_the_fastest_fp32_is_named():
    said = web_tables.recommendation(result())
    assert said == (
        "Take **`tflite-int8`** first: 0.25 of the download and 0.94 of the time of fp32. The fastest fp32 is "
        "`tflite-fp32`."
    )


def test_a_file_that_is_calibrated_comes_first_only_for_those_who_have_images():
    faster = result()
    next(call for call in faster["calls"] if call["file"] == "tflite-int8-static")["processor_s"] = [4 * 27 / 1e3] * 3
    assert web_tables.recommendation(faster) == (
        "With images to calibrate with, take **`tflite-int8-static`** first (0.25 of the download and 0.75 of the time "
        "of fp32), without any **`tflite-int8`** (0.25 of the download and 0.94 of the time of fp32). The fastest fp32 "
        "is `tflite-fp32`."
    )


def test_what_does_not_answer_right_is_never_recommended():
    said = web_tables.recommendation(result(tflite_int8="different", tflite_fp32="different"))
    assert said.startswith("Take **`onnx-int8`** first") and said.endswith("The fastest fp32 is `onnx-fp32`.")
    assert web_tables.recommendation(result(onnx_fp32="different", tflite_fp32="different")) == "Not measured."


def test_each_file_has_its_line_and_what_is_refused_has_no_figures():
    lines = web_tables.summary(result()).splitlines()
    assert lines[2] == "| `onnx-fp32` | same | 20.0 | 60.0 | 1.00 |"
    assert lines[8] == "| `tflite-int8-full` | refused | 5.0 | - | - |"
    targets = {target.text: target.met for target in web_tables.targets({"tiny": result()})}
    assert list(targets.values()) == [True, True, True]


def test_weights_beside_a_file_have_their_line():
    facts = {"started": "today", "host": {"cpu": "a processor", "cores": 2, "python": "3.11", "load_1m": 0.1}}
    file = {"file": "onnx-fp32", "bytes": 1, "beside_bytes": 1_217_000_000, "error": None, "verdict": "same"}
    file |= {"max_abs": 1.6e-06, "tolerance": 1.7e-05, "load_ms": 9876.0, "call_ms": 4321.0, "peak_mb": 2900.4}
    large = facts | {"versions": {}, "browser": "Chromium 1", "packages": [], "files": [file], "calls": []}
    assert "| onnx-fp32 | 1217 | same | 1.6e-06 | 1.7e-05 | 9.9 | 4.3 | 2900 |" in web_tables.render({"large": large})


def test_only_sizes_past_the_limit_of_one_file_are_taken_as_large():
    assert [name for name, size in SIZES.items() if is_large(size)] == ["large"]
