"""What the page asks of the engines' JavaScript, of which scripts in Node write down what they are asked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from vit_deploy.runtimes.web import engines

HERE = Path(engines.__file__).parent
LITERT = """
export const asked = globalThis.asked = [];
export async function loadLiteRt(folder, options) { asked.push(["loadLiteRt", folder.split("/").slice(-2), options]); }
export async function loadAndCompile(address, options) {
  asked.push(["loadAndCompile", address, options]);
  const runner = (name) => ({
    getInputDetails: () => [{name, shape: [1, 6, 5, 3]}],
    getOutputDetails: () => [{name: `${name}-logits`}],
    async run(inputs) { asked.push(["run", name, inputs.length]); return []; },
  });
  return {...runner("first"), isFullyAccelerated: true, signatures: {first: runner("first"), second: runner("second")}};
}
export class Tensor {}
"""
RUN = """
import {start} from "ENGINE";
globalThis.location = "FOLDER/";
const [options, open] = JSON.parse(process.argv[1]);
const engine = await start({script: "npm/core/dist/index.mjs", ...options});
let facts;
try {
  const model = await engine.open({model: "a b.tflite", ...open});
  facts = model.facts;
  model.upload([{values: new Float32Array(90), shape: [1, 6, 5, 3]}]);
  await model.compute();
} catch (error) {
  facts = error.message;
}
process.stdout.write(JSON.stringify([facts, globalThis.asked]));
"""


@pytest.fixture
def litert(node, tmp_path):
    """Starts the engine with options, opens a model, and gives its facts and what the library was asked."""
    (tmp_path / "npm" / "core" / "dist").mkdir(parents=True)
    (tmp_path / "npm" / "core" / "dist" / "index.mjs").write_text(LITERT)
    (tmp_path / "tflite.mjs").write_text((HERE / "tflite.js").read_text(encoding="utf-8"))
    script = RUN.replace("ENGINE", (tmp_path / "tflite.mjs").as_uri()).replace("FOLDER", tmp_path.as_uri())

    def ask(options, **opening):
        given = json.dumps([options, opening])
        command = [node, "--input-type=module", "--eval", script, "--", given]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return ask


def test_litert_computes_in_fp32_on_webgpu_though_shaders_have_halves(litert):
    facts, asked = litert({"provider": "webgpu", "threads": None})
    assert asked[:2] == [
        ["loadLiteRt", ["wasm", ""], {"threads": False}],
        ["loadAndCompile", "model/a%20b.tflite", {"accelerator": "webgpu", "gpuOptions": {"precision": "fp32"}}],
    ]
    assert facts == {"input": {"name": "first", "shape": [1, 6, 5, 3]}, "outputs": ["first-logits"], "delegated": True}


def test_litert_takes_threads_in_webassembly(litert):
    for threads, count in ((None, 1), (1, 1), (3, 3)):
        _, asked = litert({"provider": "wasm", "threads": threads})
        assert asked[0][2] == {"threads": count > 1}
        assert asked[1][2] == {"accelerator": "wasm", "cpuOptions": {"numThreads": count}}


def test_litert_runs_the_signature_that_is_asked_for(litert):
    facts, asked = litert({"provider": "wasm", "threads": 1}, signature="second")
    assert facts["outputs"] == ["second-logits"] and asked[-1] == ["run", "second", 1]
    facts, _ = litert({"provider": "wasm", "threads": 1}, signature="third")
    assert facts == "the file has no signature third, but first, second"
