// The page that carries out what its server asks, one command after the other.
//
// A command and its answer are a line of JSON, then bytes. `alive` is a request that stays open as long as the page
// lives: its end tells the server of a crash.

const MOST_SAID = 20;
const said = [];
const ENGINES = {onnx: "./onnx.js", tflite: "./tflite.js"};
let current = 0;
let engine = null;
let model = null;

for (const kind of ["warn", "error"]) {
  console[kind] = (...words) => {
    said.push(words.map(String).join(" ").slice(0, 400));
    said.splice(0, said.length - MOST_SAID);
  };
}

const inWords = (error) =>
  typeof error === "number" ? `a C++ exception (${error})` : `${error?.name ?? typeof error}: ${error?.message ?? error}`;

const answer = (number, head, bytes = []) =>
  fetch(`answer/${number}`, {method: "POST", body: new Blob([JSON.stringify({...head, said}) + "\n", ...bytes])});

addEventListener("error", (event) => answer(current, {error: event.message || "an error that says nothing"}));
addEventListener("unhandledrejection", (event) => answer(current, {error: inWords(event.reason)}));

const KINDS = {
  float32: Float32Array,
  float16: globalThis.Float16Array ?? Uint16Array,
  uint8: Uint8Array,
  int8: Int8Array,
};
const numbers = (bytes, dtype) => new KINDS[dtype](bytes);
const bytesOf = ({buffer, byteOffset, byteLength}) => new Uint8Array(buffer, byteOffset, byteLength);

async function adapterFacts() {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return null;
  const {vendor, architecture, device, description} = adapter.info;
  return {
    name: [vendor, architecture, device, description].filter(Boolean).join(" "),
    software: Boolean(adapter.isFallbackAdapter || adapter.info.isFallbackAdapter),
    f16: adapter.features.has("shader-f16"),
  };
}

const OPERATIONS = {
  // What there is, before any engine is loaded.
  async look({webgpu}) {
    const adapter = webgpu ? await adapterFacts() : null;
    const {fullVersionList = []} = (await navigator.userAgentData?.getHighEntropyValues(["fullVersionList"])) ?? {};
    const versions = Object.fromEntries(fullVersionList.map(({brand, version}) => [brand, version]));
    return [{agent: navigator.userAgent, versions, isolated: crossOriginIsolated, adapter}];
  },

  async start(command, bytes) {
    engine = await (await import(ENGINES[command.format])).start({...command, tiny: new Uint8Array(bytes)});
    return [{}];
  },

  async open(command) {
    const begun = performance.now();
    model = await engine.open(command);
    return [{...model.facts, open_ms: performance.now() - begun}];
  },

  async run({shape, dtype, outputs}, bytes) {
    model.upload([{values: numbers(bytes, dtype), shape, dtype}]);
    await model.compute();
    const found = await model.download(outputs);
    return [{outputs: found.map(({data, ...head}) => head)}, found.map(({data}) => bytesOf(data))];
  },

  // Images of the calls that `time` is going to make; several parts where the file takes fewer than a call has.
  async upload({shapes, dtype}, bytes) {
    let start = 0;
    const parts = shapes.map((shape) => {
      const length = shape.reduce((product, side) => product * side, KINDS[dtype].BYTES_PER_ELEMENT);
      const values = numbers(bytes.slice(start, start + length), dtype);
      start += length;
      return {values, shape, dtype};
    });
    model.upload(parts);
    return [{}];
  },

  async time({calls, seconds}) {
    const samples = [];
    const begun = performance.now();
    while (calls === null || samples.length < calls) {
      const start = performance.now();
      if (seconds !== null && samples.length && start - begun >= seconds * 1e3) break;
      await model.compute();
      samples.push(performance.now() - start);
    }
    return [{samples_ms: samples}];
  },
};

fetch("alive").catch(() => {});
for (;;) {
  const reply = await fetch("next");
  if (reply.status !== 200) continue;
  const buffer = await reply.arrayBuffer();
  const end = new Uint8Array(buffer).indexOf(10);
  const command = JSON.parse(new TextDecoder().decode(buffer.slice(0, end)));
  current = command.number;
  said.length = 0;
  try {
    await answer(current, ...(await OPERATIONS[command.op](command, buffer.slice(end + 1))));
  } catch (error) {
    await answer(current, {error: inWords(error)});
  }
}
