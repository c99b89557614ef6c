"""The classes that a model sees in images of any source, decoded ahead of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_deploy.data.decoding import Decoded, Decoder
from vit_deploy.data.finding import find_source, is_stream
from vit_deploy.data.folders import Files
from vit_deploy.data.items import Item, Joined, Source
from vit_deploy.data.pipeline import decoded
from vit_deploy.runtimes.classify import BATCH, Classifier, Prediction, image_files


def images_of(given: Sequence[str], column: str | None = None) -> Source:
    """What arguments of the command stand for: image files, folders of them, and every other source of images.

    Args:
        given: paths, patterns, addresses.
        column: of the images in Parquet files; None finds the only one that can be.

    Raises:
        DataError: a folder without images, or nothing but paths that do not exist.
    """
    if column is None and not any(map(is_stream, given)):
        return Files(tuple(map(str, image_files(list(map(Path, given))))))
    sources = [find_source([text], column) if is_stream(text) else images_of([text]) for text in given]
    return sources[0] if len(sources) == 1 else Joined(tuple(sources))


def predict(classifier: Classifier, source: Source, *, count: int, workers: int) -> Iterator[Prediction]:
    """What the model sees in each image, in their order; broken ones are named and passed over.

    Args:
        classifier: the result of `open_classifier`.
        source: the images.
        count: the number of classes to give for each.
        workers: processes that decode; 0 for none.
    """
    decoder = Decoder(((classifier.preprocess, classifier.config.image_size),))
    with decoded(source.items(), decoder, batch=BATCH, workers=workers) as groups:
        for items, images in groups:
            yield from predictions(classifier, items, images, count)


def predictions(classifier: Classifier, items: Sequence[Item], images: Decoded, count: int) -> Iterator[Prediction]:
    """What the model sees in images that are decoded.

    Args:
        classifier: the result of `open_classifier`.
        items: the images.
        images: their pixels, and why some could not be read.
        count: the number of classes to give for each.
    """
    for start, part in zip(range(0, len(items), BATCH), images.parts(BATCH), strict=True):
        [pixels] = part.pixels
        inputs = pixels if classifier.takes_pixels else classifier.preprocess.normalize(pixels)
        outputs = iter(classifier.infer(inputs) if len(inputs) else ())
        for item, failure in zip(items[start : start + BATCH], part.failures, strict=True):
            top = () if failure else classifier.top(next(outputs), count)
            yield Prediction(Path(item.path if item.is_file else item.name), top, failure)
