from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.checkpoints import save
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward

BACKENDS = ("tensorflow", "jax", "torch")
SCRIPT = Path(__file__).with_name("on_one_backend.py")

pytestmark = pytest.mark.peers

LOADED = """
import sys
import keras, numpy as np, vit_deploy
images = np.load(sys.argv[2])
np.save(sys.argv[3], keras.ops.convert_to_numpy(vit_deploy.load(sys.argv[1])(images)))
"""


def run(backend: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": root}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By backend, where the script wrote its results in a process of its own."""
    if absent := [backend for backend in BACKENDS if importlib.util.find_spec(backend) is None]:
        pytest.skip(f"needs {', '.join(absent)}")
    made = {}
    for backend in BACKENDS:
        made[backend] = tmp_path_factory.mktemp(backend)
        ran = run(backend, SCRIPT, made[backend] / "results.npz", made[backend])
        assert ran.returncode == 0, f"{backend}:\n{ran.stderr}"
    return made


@pytest.fixture(scope="module")
def results(folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """By backend, what the script found; TensorFlow is what the others are compared with."""
    found = {}
    for backend, folder in folders.items():
        with np.load(folder / "results.npz") as arrays:
            found[backend] = {name.replace("|", "/"): arrays[name] for name in arrays.files}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_a_model_that_is_loaded_on_another_backend_computes_the_reference(
    backend: str, checkpoint: Checkpoint, images: NDArray[np.float32], tmp_path: Path
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    save(checkpoint, tmp_path / "model.safetensors")
    np.save(tmp_path / "images.npy", images)
    ran = run(backend, "-c", LOADED, tmp_path / "model.safetensors", tmp_path / "images.npy", tmp_path / "found.npy")
    assert ran.returncode == 0, ran.stderr
    expected = forward(checkpoint, images)
    assert expected.std() > 0.01
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_answers_differ_by_rounding_alone(results: dict[str, dict[str, Any]], backend: str) -> None:
    names = [name for name in results["tensorflow"] if name.startswith("answer/")]
    assert len(names) > 20
    for name in names:
        expected, found = results["tensorflow"][name], results[backend][name]
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-4, name
        assert expected.std() > 0.01, name


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_the_random_weights_are_the_same_bits(results: dict[str, dict[str, Any]], backend: str) -> None:
    names = [name for name in results["tensorflow"] if name.startswith("first/")]
    assert len(names) > 30
    for name in names:
        np.testing.assert_array_equal(results["tensorflow"][name], results[backend][name])


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 0.05)])
def test_one_step_of_training_moves_the_weights_alike(
    results: dict[str, dict[str, Any]], backend: str, dtype: str, tolerance: float
) -> None:
    names = [name for name in results["tensorflow"] if name.startswith(f"step/{dtype}/")]
    largest = max(np.abs(results["tensorflow"][name]).max() for name in names)
    assert largest > 1e-3
    for name in names:
        assert np.abs(results["tensorflow"][name] - results[backend][name]).max() <= tolerance * largest, name


FILES = """
import sys, numpy as np, keras, vit_deploy
vit_deploy.ViT
images = np.random.default_rng(0).standard_normal((2, 24, 32, 3)).astype(np.float32)
for path in sys.argv[1:]:
    print(*keras.ops.convert_to_numpy(keras.saving.load_model(path)(images)).ravel().tolist())
"""


@pytest.mark.slow
def test_a_file_saved_on_one_backend_loads_on_the_others(folders: dict[str, Path]) -> None:
    paths = [folder / "float32.keras" for folder in folders.values()]
    tables = []
    for backend in BACKENDS:
        ran = run(backend, "-c", FILES, *paths)
        assert ran.returncode == 0, ran.stderr
        tables.append(np.array([line.split() for line in ran.stdout.splitlines()], float))
    assert tables[0].shape == (len(paths), 2 * 5)
    assert tables[0].std() > 1e-3
    # Each file was trained a step on its own backend, so a file is compared with itself.
    for table in tables[1:]:
        np.testing.assert_allclose(table, tables[0], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_flash_attention_without_its_device_is_refused_and_never_replaced(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = (
        "import numpy as np, vit_deploy;"
        "model = vit_deploy.ViT("
        "(24, 32, 3), 5, 'pico', (8, 4), num_layers=1, attention_args={'flash_attention': True});"
        "model(np.zeros((1, 24, 32, 3), 'float32'))"
    )
    ran = run(backend, "-c", f"import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''; {code}")
    assert ran.returncode != 0
    assert f"flash_attention=True, and the {backend} backend" in ran.stderr
