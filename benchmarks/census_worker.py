"""The process of the census that makes, saves, reads and compares some names: a line of JSON on stdout for each."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def main(arguments: Sequence[str]) -> None:
    """Names to stdout, or the rows of the names that are given."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import timm

    from tests.peers import census_timm

    if arguments[0] == "--names":
        for name in census_timm.registered(timm):
            print(json.dumps(name))
        return
    for index, text in enumerate(arguments[1:]):
        name: dict[str, Any] = json.loads(text)
        folder = Path(arguments[0]) / str(index)
        print(json.dumps({**name, **census_timm.walked(timm, name["name"], name["today"], folder)}), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
