"""Many images in one way, in a process of its own: `python images_worker.py WAY JOB`, which prints JSON.

Each way notes how many images were finished when; what it takes to load libraries, models and worker processes comes
before the first note, and counts for none. Every way starts from the same JPEG files and ends with vectors.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Note = Callable[[int], None]
BATCH = 8


def _files(job: dict[str, Any]) -> list[Path]:
    return sorted(Path(job["photos"]).glob("*.jpg"))[: job["images"]]


def embed(job: dict[str, Any], note: Note, **options: Any) -> None:
    """`vit_deploy.embed`, which says how far it is."""
    import vit_deploy

    def progress(doing: str) -> None:
        words = doing.split(": ", 1)[-1].split()
        if len(words) > 3 and words[1] == "of" and words[3].startswith("images"):
            note(int(words[0]))

    with tempfile.TemporaryDirectory() as folder:
        vit_deploy.embed(job["artifact"], job["photos"], f"{folder}/f.npy", progress=progress, **options)


def whole(job: dict[str, Any], note: Note) -> None:
    """The same from the call to its end, with a cluster of this machine where the job names one."""
    import vit_deploy

    with tempfile.TemporaryDirectory() as folder:
        note(0)
        found = vit_deploy.embed(job["artifact"], job["photos"], f"{folder}/f.npy", ray=job.get("ray"))
        note(found.result.images)


def engine(job: dict[str, Any], note: Note) -> None:
    """The engine alone, on images that are pixels already: calls of one session, or of two at once."""
    import vit_deploy

    files = _files(job)
    images = vit_deploy.read_images(job["artifact"], files[:BATCH])
    streams, done, turn = job["streams"], [0], threading.Lock()
    threads = max(1, len(os.sched_getaffinity(0)) // streams)
    groups = iter(range(0, len(files), BATCH))

    def run(session: Any) -> None:
        for _ in groups:
            session.infer(images)
            with turn:
                done[0] += len(images)
                note(done[0])

    sessions = [vit_deploy.session(job["artifact"], threads=threads) for _ in range(streams)]
    opened = [session.__enter__() for session in sessions]
    for session in opened:
        session.infer(images)
    workers = [threading.Thread(target=run, args=(session,)) for session in opened]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def pipeline(job: dict[str, Any], note: Note) -> None:
    """transformers' pipeline for features, of a ViT of the same sizes."""
    import torch
    from transformers import ViTConfig, ViTImageProcessor, ViTModel
    from transformers import pipeline as make

    shape = job["model"]
    config = ViTConfig(
        hidden_size=shape["embed_dim"],
        num_hidden_layers=shape["num_layers"],
        num_attention_heads=shape["num_heads"],
        intermediate_size=shape["mlp_dim"],
        image_size=shape["image_size"],
        patch_size=shape["patch_size"],
    )
    torch.manual_seed(0)
    model = ViTModel(config, add_pooling_layer=False).eval()
    side = shape["image_size"]
    processor = ViTImageProcessor(size={"height": side, "width": side})
    run = make("image-feature-extraction", model=model, image_processor=processor)
    files = list(map(str, _files(job)))
    for start in range(0, len(files), BATCH):
        run(files[start : start + BATCH], batch_size=BATCH)
        note(min(start + BATCH, len(files)))


class Photos:
    """A data set as PyTorch's loader takes it, with what most programs do to a file."""

    def __init__(self, files: list[Path], side: int) -> None:
        self.files, self.side = files, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.files[place]) as image:
            pixels = np.asarray(image.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR))
        return (pixels.astype(np.float32) / 255 - 0.5) / 0.5


def loader(job: dict[str, Any], note: Note) -> None:
    """ONNX Runtime in a loop over PyTorch's DataLoader, with as many workers as cores."""
    import onnxruntime
    from torch.utils.data import DataLoader

    files = _files(job)
    session = onnxruntime.InferenceSession(
        str(Path(job["artifact"]) / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    photos: Any = Photos(files, job["model"]["image_size"])
    done, found = 0, []
    for batch in DataLoader(photos, batch_size=BATCH, num_workers=len(os.sched_getaffinity(0))):
        found.append(session.run(None, {"images": batch.numpy()})[0])
        done += len(found[-1])
        note(done)


def memory(job: dict[str, Any], note: Note) -> None:
    """The most that `embed` and its processes hold together, looked at all the time."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            for pid in (str(os.getpid()), *_children()):
                try:
                    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM:"):
                            peaks[pid] = int(line.split()[1]) * 1024
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        embed(job, note)
    finally:
        ended.set()
        thread.join()
    job["peaks"] = sorted(peaks.values(), reverse=True)


def _children() -> list[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


WAYS = {way.__name__: way for way in (embed, whole, engine, pipeline, loader, memory)}


def main(way: str, text: str) -> None:
    """Run one way and say when which image was finished."""
    job = json.loads(text)
    notes: list[tuple[int, int]] = []
    WAYS[way](job, lambda done: notes.append((time.perf_counter_ns(), done)))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(entry.ru_utime + entry.ru_stime for entry in used)
    found = {"ns": [ns - notes[0][0] for ns, _ in notes], "images": [done for _, done in notes], "cpu_s": cpu_s}
    print(json.dumps({**found, "peaks": job.get("peaks", [])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
