// ONNX Runtime Web in a page that may ask for nothing: its script and its WebAssembly come as bytes.

const KINDS = {float32: Float32Array, uint8: Uint8Array, float16: globalThis.Float16Array};
let ort = null;

/** A model that is ready: {run, close}. */
export async function openModel(runtime, {model, data}) {
  if (ort === null) {
    const address = URL.createObjectURL(new Blob([runtime.script], {type: "text/javascript"}));
    const loaded = await import(address);
    URL.revokeObjectURL(address);
    Object.assign(loaded.env.wasm, {numThreads: 1, wasmBinary: runtime.wasm, proxy: false});
    loaded.env.logLevel = "error";
    ort = loaded;
  }
  const external = data && [{path: data.name, data: data.bytes}];
  const session = await ort.InferenceSession.create(model, {executionProviders: ["wasm"], externalData: external});
  return {
    /** Numbers of the outputs by their names, for the numbers of an input of one shape. */
    async run({name, dtype}, values, shape) {
      const Kind = KINDS[dtype];
      if (Kind === undefined) throw new Error(`this browser has no numbers of kind ${dtype}; a newer one has`);
      const input = new ort.Tensor(dtype, values instanceof Kind ? values : new Kind(values), shape);
      const results = await session.run({[name]: input}), found = {};
      for (const [output, tensor] of Object.entries(results)) {
        found[output] = Float32Array.from(await tensor.getData());
        tensor.dispose();
      }
      return found;
    },
    close: () => session.release(),
  };
}
