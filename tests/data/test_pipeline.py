"""Images are decoded ahead, in order, by processes that leave nothing behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.data import pipeline
from vit_deploy.data.decoding import Decoder
from vit_deploy.data.finding import find_source
from vit_deploy.data.items import Item
from vit_deploy.data.pipeline import DecodeProcess, Workers, decoded

DECODER = Decoder(((Preprocess(resize=8, crop=True), (6, 5)), (Preprocess(), (3, 4))), digests=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(2)
    for place in range(21):
        Image.fromarray(rng.integers(0, 256, (11, 9, 3), np.uint8)).save(folder / f"{place:02}.png")
    (folder / "07.png").write_bytes(b"no image")
    (folder / "08.png").write_bytes(b"")
    return folder


def everything(folder: Path, workers: int, batch: int = 3) -> list[tuple[list[str], list[list[int]], tuple, tuple]]:
    with decoded(find_source([str(folder)]).items(), DECODER, batch=batch, workers=workers) as groups:
        return [
            ([item.name for item in items], [kind.tolist() for kind in images.pixels], images.digests, images.failures)
            for items, images in groups
        ]


def children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def test_processes_give_what_this_one_gives_in_the_same_order(photos):
    before = children(), threading.active_count()
    alone = everything(photos, 0)
    assert everything(photos, 2) == alone
    assert (children(), threading.active_count()) == before, "no process and no thread is left"
    assert [name for names, *_ in alone for name in names] == [f"{place:02}.png" for place in range(21)]
    failures = [failure for *_, group in alone for failure in group]
    assert [place for place, failure in enumerate(failures) if failure] == [7, 8]
    assert all(len(names) == 9 for names, *_ in alone[:-1]), "whole batches"


def test_pixels_are_those_of_the_other_commands(photos):
    for _, images in [(0, DECODER([Item("x", str(photos / "03.png"))]))]:
        for kind, pixels in zip(DECODER.kinds, images.pixels, strict=True):
            assert np.array_equal(pixels[0], load_pixels(photos / "03.png", *kind))


def test_groups_part_into_batches_with_their_own_readable_images(photos):
    items = list(find_source([str(photos)]).items())
    parts = DECODER(items).parts(4)
    assert [len(part) for part in parts] == [4, 4, 4, 4, 4, 1]
    assert [len(part.pixels[0]) for part in parts] == [4, 3, 3, 4, 4, 1]
    for start, part in zip(range(0, 21, 4), parts, strict=True):
        alone = DECODER(items[start : start + 4])
        assert part.failures == alone.failures and np.array_equal(part.pixels[1], alone.pixels[1])


def test_no_more_is_read_than_is_in_flight(photos):
    taken = []

    def counted():
        for place in range(1000):
            taken.append(place)
            yield Item(str(place), str(photos / "01.png"))

    with decoded(counted(), DECODER, batch=8, workers=2) as groups:
        next(groups)
        assert len(taken) <= 8 * (2 * pipeline.AHEAD + 1)


def test_a_process_that_is_killed_is_replaced_and_nothing_is_lost(photos):
    items = list(find_source([str(photos)]).items())
    with Workers(DECODER, 1) as pool:
        expected = DECODER(items)
        [process] = pool._all
        process.kill()
        found = pool.decode(items)
        assert found.failures == expected.failures and found.digests == expected.digests
        assert np.array_equal(found.pixels[0], expected.pixels[0])


class Deadly(Decoder):
    """A decoder that one image kills, as a library does that crashes."""

    def __call__(self, items):
        if any(item.name == "04.png" and not item.failure for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(items)


def test_an_image_that_kills_its_process_is_one_that_is_broken(photos, monkeypatch):
    root = Path(__file__).parent
    monkeypatch.setattr(
        pipeline,
        "of_children",
        lambda: {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}" + os.environ.get("PYTHONPATH", "")},
    )
    import test_pipeline  # by a name that the process can import it by

    items = list(find_source([str(photos)]).items())[:6]
    with Workers(test_pipeline.Deadly(DECODER.kinds), 1) as pool:
        found = pool.decode(items)
    assert [bool(failure) for failure in found.failures] == [False] * 4 + [True, False]
    assert "ends the process that decodes it (killed by SIGKILL)" in found.failures[4]


def test_a_process_ends_when_the_one_that_started_it_is_gone(photos):
    process = DecodeProcess(DECODER)
    process.decode([Item("x", str(photos / "01.png"))])
    process._stdin.close()
    assert process._process.wait(timeout=20) == 0
    process.close()


def test_an_error_of_the_consumer_ends_all(photos):
    before = children()
    with (
        pytest.raises(KeyboardInterrupt),
        decoded(find_source([str(photos)]).items(), DECODER, batch=1, workers=2) as groups,
    ):
        next(groups)
        raise KeyboardInterrupt
    deadline = time.monotonic() + 20
    while children() != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children() == before
