"""Artifacts packed into one archive with everything that proves and times them on a device.

The archive holds the artifacts, those modules of vit-deploy that are imported on a device (`contents`), and `run.py`.
What a device adds is Python, NumPy and the engine.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.staging import staged_file
from vit_deploy.errors import ConfigError
from vit_deploy.remote.contents import EVERYTHING, PACKAGE, Asked, Use, modules_on_device, use_of
from vit_deploy.remote.device import OLDEST
from vit_deploy.remote.unpacked import IMAGES, LISTING, PLACE
from vit_deploy.remote.work import COMMANDS

ROOT = "vit-deploy-device"
# Its first lines are for any Python, so that one that is too old is told so.
RUNNER = """\
# Proves and times the models beside it: python run.py verify, python run.py bench; --help says more.

import sys

if sys.version_info < {oldest}:
    found = (sys.executable,) + tuple(sys.version_info[:2])
    sys.stderr.write("vit-deploy: %s is Python %d.%d\\n  fix: run it with Python {words} or later\\n" % found)
    sys.exit(2)
try:
    import numpy
except ImportError as error:
    sys.stderr.write("vit-deploy: %s has no NumPy that it can import: %s\\n" % (sys.executable, error))
    sys.stderr.write("  fix: %s -m pip install numpy\\n" % sys.executable)
    sys.exit(2)

from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from vit_deploy.remote.device import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
""".format(oldest=OLDEST, words=".".join(map(str, OLDEST)))


def pack(
    artifacts: Sequence[Path],
    target: Path,
    *,
    force: bool = False,
    images: Path | None = None,
    asked: Asked = EVERYTHING,
) -> None:
    """Write a `.tar.gz` that proves and times artifacts where it is unpacked; the same artifacts give the same bytes.

    Args:
        artifacts: folders of artifacts.
        target: the file to write.
        force: whether a file that is there is replaced.
        images: folder of images that `pixels` has written, to be run there; None for none.
        asked: what its runner is going to be asked for; what that does not take stays here.

    Raises:
        ArtifactError: a folder that is no artifact, or one that was changed.
        EngineError: one whose weights lie outside of it.
        ConfigError: nothing to pack.
        OutputError: the target exists, or cannot be written.
    """
    if not artifacts:
        raise ConfigError("there is nothing to pack", fix="give folders of artifacts")
    read = [read_artifact(path) for path in artifacts]
    for artifact in read:
        if (refuse := FORMATS[artifact.format].refuse) is not None:
            refuse.load()(artifact.model_path)
    with (
        staged_file(target, force=force) as staged,
        staged.open("wb") as file,
        # Without the time in its header, which would make each file another.
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        use = use_of(read, asked, with_images=images is not None)
        for name, content in _members(read, use):
            _add(archive, f"{ROOT}/{name}", content)
        for path in sorted(images.iterdir()) if images is not None else ():
            _add(archive, f"{ROOT}/{IMAGES}/{path.name}", path)


def _members(artifacts: Sequence[Artifact], use: Use) -> Iterator[tuple[str, Path | bytes]]:
    """Path in the archive, and the file or the bytes that go there."""
    yield "run.py", RUNNER.encode()
    listing = []
    for index, artifact in enumerate(artifacts):
        folder = artifact.directory
        place = f"{PLACE}/{index}-{folder.resolve().name}"
        listing.append({"place": place, "path": str(folder)})
        # What else lies in the folder, or is linked there, is nobody's business on a device.
        yield from ((f"{place}/{name}", folder / name) for name in sorted({MANIFEST, *artifact.files}))
    listed = {"commands": [name for name in COMMANDS if name in use.asked.commands], "artifacts": listing}
    yield LISTING, json.dumps(listed, indent=1).encode()
    for path in sorted(modules_on_device(use).values()):
        yield f"vit_deploy/{path.relative_to(PACKAGE).as_posix()}", path


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    if isinstance(content, bytes):
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    else:
        info.size = content.stat().st_size
        with content.open("rb") as file:
            archive.addfile(info, file)
