"""An .npz whose headers are damaged is one error that names the file, wherever NumPy stumbles over it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.datasets import read_chosen, read_dataset
from vit_deploy.errors import DataError

HEADER = b"'shape': (4, 24, 32, 3), }"


def arrays() -> dict[str, bytes]:
    found = {}
    for name, array in (("images", np.zeros((4, 24, 32, 3), np.uint8)), ("labels", np.arange(4))):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array)
        found[name] = stream.getvalue()
    return found


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        b"'shape': (4, 24, 32, 3), ]",
        b"'shape': '''4, 24, 32, 3)}",
        b"'shape': (4, 24, 32, {}), ",
        b"'shape': (4, 24, 32, 3e9)}",
        b"'shape': (9" + 15 * b"9" + b",,) , }"[:10],
    ],
)
def test_a_damaged_header_of_images_is_one_error(tmp_path: Path, header: bytes) -> None:
    members = arrays()
    members["images"] = members["images"].replace(HEADER, header.ljust(len(HEADER))[: len(HEADER)])
    path = zipped(tmp_path / "data.npz", members)
    for read in (read_dataset, lambda each: read_chosen(each, lambda count: list(range(count)))):
        with pytest.raises(DataError, match=r"data\.npz"):
            read(path)


def test_labels_of_more_numbers_than_any_machine_holds_are_one_error(tmp_path: Path) -> None:
    members = arrays()
    members["labels"] = members["labels"].replace(b"(4,), }       ", b"(4" + 9 * b"9" + b"999,),")
    with pytest.raises(DataError, match=r"data\.npz cannot be read"):
        read_dataset(zipped(tmp_path / "data.npz", members))


def test_a_zip_that_is_said_to_be_encrypted_is_one_error(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.npz", arrays())
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for start in [at for at in range(len(data)) if data.startswith(mark, at)]:
            data[start + place] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"data\.npz cannot be read as \.npz: .*encrypted"):
        read_dataset(path)
