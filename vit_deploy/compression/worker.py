"""The process that trains, with TensorFlow set up for Keras 2 and for exact repetition.

It is started by `compression.stage` with a folder that holds the job, prints one line of JSON for what it is doing, and
leaves `result.npz` in the folder. Its stdin is a pipe that nobody writes to. The end of that says that whoever started
it is gone; then it ends too, since nobody would take the result.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.compression import SHRINK
from vit_deploy.compression.job import JOB, RESULT, Job


def main(folder: Path) -> int:
    """Do the job in a folder; 2 for what a user can fix, which is printed."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow as tf

    from vit_deploy.compression.shrinking import train_smaller
    from vit_deploy.compression.training import train
    from vit_deploy.errors import VitDeployError

    tf.config.experimental.enable_op_determinism()
    job = Job.read(folder / JOB)
    try:
        images, held_out = job.images()
        trained = (train_smaller if job.options.method == SHRINK else train)(
            job.checkpoint(folder),
            job.options,
            images,
            held_out,
            state=folder,
            fingerprint=job.fingerprint(),
            progress=lambda doing: _say(doing=doing),
            on_epoch=lambda record: _say(epoch=dict(record)),
        )
    except VitDeployError as error:
        _say(error=type(error).__name__, message=error.message, fix=error.fix)
        return 2
    about = {
        "config": trained.config.to_dict(),
        "history": list(trained.history),
        "best_epoch": trained.best_epoch,
        "seconds": trained.seconds,
        "ranges": {name: list(ends) for name, ends in trained.ranges.items()},
    }
    with (folder / RESULT).open("wb") as stream:
        np.savez(stream, **trained.weights)  # type: ignore[arg-type]
    with zipfile.ZipFile(folder / RESULT, "a") as archive:
        archive.writestr("about.json", json.dumps(about))
    return 0


def end_with_stdin() -> None:
    """Wait for the end of stdin, and end at once."""
    os.read(0, 1)
    os._exit(1)


def _say(**what: str | dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    if stat.S_ISFIFO(os.fstat(0).st_mode):  # by hand it may be started with any other
        threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.exit(main(Path(sys.argv[1])))
