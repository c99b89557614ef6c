"""What a case does beside its calls is not counted as the model's memory."""

from __future__ import annotations

from tests.linear_bundle import write_bundle
from vit_deploy.performance.process import WORKER, CaseProcess

CASE = {"runtime": "onnxruntime", "provider": None, "threads": 1, "batch": 1, "streams": 1}


def test_an_image_file_is_timed_when_the_memory_has_been_read(tmp_path):
    artifact = str(write_bundle(tmp_path / "bundle"))
    with CaseProcess("case", 60, WORKER) as worker:
        loaded = worker.ask({"artifact": artifact, **CASE})
        assert "preprocess_ns" not in loaded and loaded["resting_rss_mb"] > 10
        worker.ask({"warmup": 1})
        early = worker.ask({"calls": 2, "seconds": None})
        assert "preprocess_ns" not in early
        late = worker.ask({"calls": 2, "seconds": None, "last": True})
        assert len(late["preprocess_ns"]) == 5 and min(late["preprocess_ns"]) > 0
        # Pillow and its arrays take more than the model of 360 weights, and came after the peak was read.
        assert late["peak_rss_mb"] - early["peak_rss_mb"] < 2
        after = worker.ask({"calls": 1, "seconds": None})
        assert after["peak_rss_mb"] > late["peak_rss_mb"] + 2
