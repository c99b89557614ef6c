// ONNX Runtime Web and LiteRT.js in a page that may ask for nothing: their scripts and their WebAssembly come as bytes.

const KINDS = {float32: Float32Array, uint8: Uint8Array, float16: globalThis.Float16Array};
const OPENERS = {onnx: openOnnx, tflite: openTflite};
const started = {}; // each engine, once

const scriptOf = (bytes) => URL.createObjectURL(new Blob([bytes], {type: "text/javascript"}));

/**
 * A model that is ready: {run, close}. `run` takes the numbers of an input and their shape, and gives those of the
 * outputs by their names.
 *
 * @param facts of the model.
 * @param files {model, data}: bytes of the model, and of its weights where they lie in a file of their own.
 * @param runtimeBytes gives a part of the engine by its name.
 */
export async function openModel(facts, files, runtimeBytes) {
  return OPENERS[facts.format](facts, files, runtimeBytes);
}

function asKind({dtype}, values) {
  const Kind = KINDS[dtype];
  if (Kind === undefined) throw new Error(`this browser has no numbers of kind ${dtype}; a newer one has`);
  return values instanceof Kind ? values : new Kind(values);
}

async function openOnnx(facts, {model, data}, runtimeBytes) {
  started.onnx ??= startOnnx(await runtimeBytes("script"), await runtimeBytes("wasm"));
  const ort = await started.onnx;
  const external = data && [{path: facts.data_name, data}];
  const session = await ort.InferenceSession.create(model, {executionProviders: ["wasm"], externalData: external});
  return {
    async run(values, shape) {
      const input = new ort.Tensor(facts.input.dtype, asKind(facts.input, values), shape);
      const results = await session.run({[facts.input.name]: input}), found = {};
      for (const [output, tensor] of Object.entries(results)) {
        found[output] = Float32Array.from(await tensor.getData());
        tensor.dispose();
      }
      return found;
    },
    close: () => session.release(),
  };
}

async function startOnnx(script, wasm) {
  const ort = await import(scriptOf(script));
  Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm, proxy: false});
  ort.env.logLevel = "error";
  return ort;
}

async function openTflite(facts, {model}, runtimeBytes) {
  started.tflite ??= startTflite(await runtimeBytes("script"), await runtimeBytes("utils"), await runtimeBytes("loader"), await runtimeBytes("wasm"));
  const litert = await started.tflite;
  const compiled = await litert.loadAndCompile(model, {accelerator: "wasm"});
  const names = compiled.getOutputDetails().map(({name}) => name);
  return {
    async run(values, shape) {
      const input = new litert.Tensor(asKind(facts.input, values), shape);
      const results = facts.signature ? await compiled.run(facts.signature, [input]) : await compiled.run([input]), found = {};
      input.delete();
      for (const [index, tensor] of results.entries()) {
        // A file of one output may call it otherwise than its signature does.
        found[results.length === 1 ? facts.output : names[index]] = Float32Array.from(await tensor.data());
        tensor.delete();
      }
      return found;
    },
    close: () => compiled.delete(),
  };
}

async function startTflite(script, utils, loader, wasm) {
  const core = new TextDecoder().decode(script).replaceAll('"@litertjs/wasm-utils"', JSON.stringify(scriptOf(utils)));
  const litert = await import(scriptOf(core));
  globalThis.Module = {wasmBinary: wasm}; // from which its loader takes it, in place of fetching it
  await litert.loadLiteRt(`${scriptOf(loader)}#loader.js`); // an address has to end so
  return litert;
}
