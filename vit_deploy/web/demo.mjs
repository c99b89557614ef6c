// The page: loads a model, proves it on its golden images, and shows the classes of pictures.

import {readImage, pixelsOf} from "./images.mjs";
import {normalize, toPixels, toPlanes} from "./preprocess.mjs";
import {figure, judge, topClasses} from "./proof.mjs";
import {attentionMap, similarityMap} from "./maps.mjs";
import {openModel} from "./engine.mjs";

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const CHUNK = 1 << 20; // characters of base64 that are decoded at a time
const CAMERA_MS = 200; // between two pictures of the camera

let opened = null; // {facts, session}
let current = null; // {image, notes, name, outputs, pixels} of the picture that is shown
let turn = 0; // of loading; a newer one ends an older one
let running = Promise.resolve(); // calls of the model follow each other

const pause = () => new Promise((done) => setTimeout(done, 0));

// Bytes that the page holds, or that lie beside it.

const sizeOf = (name) => Number(byId(`payload-${name}`)?.dataset.bytes ?? facts.files[name].bytes);

/** Gives bytes by name, one after the other, and tells which share of all of them is there. */
function together(names, tell) {
  const whole = names.reduce((sum, name) => sum + sizeOf(name), 0);
  let before = 0;
  return async (name) => {
    const bytes = await bytesOf(name, (done) => tell((before + done) / whole));
    before += bytes.length;
    return bytes;
  };
}

/** `progress` is told how many bytes there are. */
async function bytesOf(name, progress = () => {}) {
  const held = byId(`payload-${name}`);
  if (held === null) return fetched(name, progress);
  const total = Number(held.dataset.bytes), text = held.textContent;
  let at = 0, done = 0;
  const packed = new ReadableStream({
    async pull(stream) {
      if (at >= text.length) return stream.close();
      stream.enqueue(Uint8Array.from(atob(text.slice(at, at + CHUNK)), (letter) => letter.charCodeAt(0)));
      at += CHUNK;
    },
  });
  const result = new Uint8Array(total);
  for await (const part of parts(packed.pipeThrough(new DecompressionStream("gzip")))) {
    result.set(part, done);
    done += part.length;
    progress(done);
  }
  return result;
}

async function fetched(name, progress) {
  const {file, bytes: total} = facts.files[name];
  let answer;
  try {
    answer = await fetch(file);
  } catch {
    throw new Error(location.protocol === "file:" ? "this folder has to be served: python -m http.server" : `${file} cannot be fetched`);
  }
  if (!answer.ok) throw new Error(`${file} cannot be fetched: ${answer.status}`);
  const result = new Uint8Array(total);
  let done = 0;
  for await (const part of parts(answer.body)) {
    if (done + part.length > total) throw new Error(`${file} has more than the ${total} bytes it should have`);
    result.set(part, done);
    done += part.length;
    progress(done);
  }
  if (done !== total) throw new Error(`${file} has ${done} bytes, expected ${total}`);
  return result;
}

async function* parts(stream) {
  const reader = stream.getReader();
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    yield value;
  }
}

// Loading and proof.

function say(state, words, share = null) {
  byId("proof").dataset.state = state;
  if (byId("verdict").textContent !== words) byId("verdict").textContent = words;
  byId("progress").hidden = share === null;
  if (share !== null) byId("progress").value = share;
}

async function load(model) {
  const mine = ++turn, late = () => mine !== turn;
  document.documentElement.dataset.ready = "no";
  byId("checks").replaceChildren();
  showCard(model);
  try {
    await running;
    opened?.session.close();
    opened = null;
    say("loading", "Loading the model …", 0);
    const needed = ["model", "data"].filter((part) => model[part]), files = {model: null, data: null};
    const modelBytes = together(needed.map((part) => model[part]), (share) => !late() && say("loading", "Loading the model …", share * 0.7));
    for (const part of needed) files[part] = await modelBytes(model[part]);
    const engineBytes = together(facts.runtimes[model.format], (share) => !late() && say("loading", "Loading the runtime …", 0.7 + share * 0.05));
    const runtimeBytes = (part) => engineBytes(`${model.format}-${part}`);
    if (late()) return;
    say("loading", "Starting the model …", 0.7);
    await pause();
    const session = await openModel(model, files, runtimeBytes);
    if (late()) return session.close();
    opened = {facts: model, session};
    const checks = await prove(model, (share) => say("loading", "Proving the model …", 0.75 + share * 0.25), late);
    if (late()) return;
    const state = checks.some((check) => check.ok === false) ? "different" : checks.some((check) => check.ok === null) ? "inconclusive" : "same";
    const words = {same: "Same as the reference", different: "Different from the reference", inconclusive: "Inconclusive"};
    say(state, words[state]);
    byId("checks").replaceChildren(...checks.map((check) => item(check.words)));
    document.documentElement.dataset.ready = "yes";
    if (current) await classify(current.image, current.notes);
  } catch (error) {
    if (late()) return;
    say("different", `The model does not run here: ${error?.message ?? error}`);
    document.documentElement.dataset.ready = "failed";
  }
}

/** Checks on what was recorded where the model was exported: [{ok, words}]. */
async function prove(model, progress, late) {
  const golden = model.golden, size = model.image_size[0] * model.image_size[1] * model.channels;
  const stored = await bytesOf(golden.images), outputs = [];
  const images = golden.dtype === "uint8" ? stored : new Float32Array(stored.buffer);
  for (let index = 0; index < golden.count; index++) {
    const image = images.subarray(index * size, (index + 1) * size);
    const input = golden.dtype === "uint8" && !model.preprocessing_inside ? normalize(image, model.preprocess) : image;
    const found = await infer(input);
    if (!(model.output in found)) throw new Error(`the file has no output ${model.output}; it has ${Object.keys(found).join(", ")}`);
    outputs.push(...found[model.output]);
    progress((index + 1) / golden.count);
    await pause();
    if (late()) return [];
  }
  const reference = new Float64Array((await bytesOf(golden.outputs)).buffer);
  const {ok, failures, metrics} = judge(outputs, reference, golden.count, model.tolerance, golden.noise);
  const held = Object.entries({max_abs: ["largest difference", ""], snr_db: ["signal to noise ratio", " dB"]})
    .filter(([name]) => name in model.tolerance && metrics[name] !== null && metrics[name] !== undefined)
    .map(([name, [words, unit]]) => `${words} ${figure(metrics[name])}${unit}, tolerance ${figure(model.tolerance[name])}${unit}`);
  const shown = held.length ? `: ${held.join("; ")}` : "";
  const checks = [{ok: ok && golden.inconclusive ? null : ok, words: ok ? golden.inconclusive || `The model answers ${golden.count} recorded images as the float64 reference does${shown}.` : `The model's answers: ${failures.join("; ")}.`}];
  if (model.photo) checks.push(await provePreprocessing(model));
  else checks.push({ok: true, words: "No image file was recorded, so that preprocessing is not compared."});
  return checks;
}

async function provePreprocessing(model) {
  const {image} = await readImage(await bytesOf(model.photo.file));
  const found = toPixels(image, model.preprocess, model.image_size).data, expected = await bytesOf(model.photo.pixels);
  let most = 0;
  for (let place = 0; place < expected.length; place++) most = Math.max(most, Math.abs(found[place] - expected[place]));
  if (found.length !== expected.length || most > 1) return {ok: false, words: `A recorded image file becomes other pixels, up to ${most} of 255 away.`};
  return {ok: true, words: `A recorded image file becomes the same pixels as where the model was exported${most ? ", to rounding" : ", to the byte"}.`};
}

/** Outputs for one image, channels side by side. */
function infer(image) {
  const {facts: model, session} = opened, {batch, layout} = model.input;
  const [height, width] = model.image_size, planes = layout === "nchw";
  const values = planes ? toPlanes(image, model.channels) : image;
  const shape = planes ? [model.channels, height, width] : [height, width, model.channels];
  let all = values;
  if (batch > 1) {
    all = new values.constructor(values.length * batch);
    for (let index = 0; index < batch; index++) all.set(values, index * values.length);
  }
  const call = running.then(() => session.run(all, [batch ?? 1, ...shape]));
  running = call.catch(() => {});
  return call.then((found) => Object.fromEntries(Object.entries(found).map(([name, numbers]) => [name, numbers.subarray(0, numbers.length / (batch ?? 1))])));
}

// Pictures.

async function classify(image, notes) {
  const model = opened?.facts;
  current = {image, notes};
  byId("problem").hidden = true;
  if (!model) return;
  const start = performance.now();
  const pixels = toPixels(image, model.preprocess, model.image_size);
  const input = model.preprocessing_inside ? pixels.data : normalize(pixels.data, model.preprocess);
  const ready = performance.now();
  const outputs = await infer(input);
  const end = performance.now();
  if (opened?.facts !== model) return;
  current = {image, notes, outputs, pixels};
  const top = topClasses(outputs[model.output], 5, model.sigmoid);
  if (top.some(({logit}) => !Number.isFinite(logit))) throw new Error("the model answered values that are NaN or infinite");
  byId("answer").hidden = false;
  showPicture(pixels, image);
  showClasses(top, model);
  byId("latency").textContent = `Preprocessing ${(ready - start).toFixed(0)} ms, model ${(end - ready).toFixed(0)} ms.`;
  byId("notes").replaceChildren(...notes.map((note) => item(`May differ from Python: ${note}.`)));
  showMaps(model);
  const best = nameOf(top[0].index, model);
  if (byId("said").dataset.best !== best || !cameraStream) byId("said").textContent = `${best}, ${percent(top[0].probability)}`;
  byId("said").dataset.best = best;
}

const percent = (share) => `${(share * 100).toFixed(1)}%`;
const nameOf = (index, model) => model.labels[index] || `class ${index}`;

function item(words) {
  const made = document.createElement("li");
  made.textContent = words;
  return made;
}

function division(name, ...children) {
  const made = document.createElement("div");
  made.className = name;
  made.append(...children);
  return made;
}

function showClasses(top, model) {
  const list = byId("classes"), previous = list.children;
  if (previous.length !== top.length) {
    list.replaceChildren(...top.map(() => {
      const made = document.createElement("li"), name = document.createElement("span"), share = document.createElement("span");
      name.className = "name";
      share.className = "share";
      made.append(division("row", name, share), division("track", division("bar")));
      return made;
    }));
  }
  top.forEach(({index, probability, logit}, place) => {
    const row = list.children[place];
    Object.assign(row.dataset, {class: index, probability, logit});
    row.querySelector(".name").textContent = nameOf(index, model);
    row.querySelector(".share").textContent = percent(probability);
    row.querySelector(".bar").style.width = percent(probability);
  });
}

function showPicture(pixels, original) {
  const canvas = byId("seen"), {width, height, channels, data} = pixels;
  Object.assign(canvas, {width, height});
  const four = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    for (let band = 0; band < 3; band++) four.data[place * 4 + band] = data[place * channels + (channels === 3 ? band : 0)];
    four.data[place * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(four, 0, 0);
  byId("size").textContent = `${width}x${height} pixels (width x height), of ${original.width}x${original.height}`;
}

function showCard(model) {
  byId("card").replaceChildren(...model.card.map(([term, words]) => {
    const name = document.createElement("dt"), value = document.createElement("dd");
    name.textContent = term;
    value.textContent = words;
    return division("", name, value);
  }));
}

// Maps of attention and of tokens, where the file has such outputs.

let chosenPatch = null;

function showMaps(model) {
  const select = byId("map"), names = ["", ...model.maps.map(({name}) => name)];
  byId("mapping").hidden = names.length === 1;
  if ([...select.options].map(({value}) => value).join() !== names.join()) {
    const words = {attention: "attention", patches: "patches alike"};
    const known = model.maps.map(({name, kind}) => new Option(`${words[kind]} (${name})`, name));
    select.replaceChildren(new Option("the picture alone", ""), ...known);
    select.value = names[1] ?? "";
  }
  drawMap();
}

function drawMap() {
  const model = opened?.facts, canvas = byId("overlay"), chosen = model?.maps.find(({name}) => name === byId("map").value);
  const context = canvas.getContext("2d");
  byId("pointing").hidden = chosen?.kind !== "patches";
  canvas.tabIndex = chosen?.kind === "patches" ? 0 : -1;
  canvas.setAttribute("aria-hidden", String(chosen?.kind !== "patches"));
  if (!chosen || !current?.outputs) return context.clearRect(0, 0, canvas.width, canvas.height);
  const [rows, columns] = model.grid, patches = rows * columns, values = current.outputs[chosen.name];
  chosenPatch = Math.min(chosenPatch ?? Math.floor(rows / 2) * columns + Math.floor(columns / 2), patches - 1);
  const map = chosen.kind === "attention" ? attentionMap(values, model.heads, model.prefix, patches, model.class_token) : similarityMap(values, patches, chosenPatch);
  Object.assign(canvas, {width: columns, height: rows});
  const four = new ImageData(columns, rows);
  map.forEach((value, patch) => four.data.set([255, Math.round(200 * value), 0, Math.round(190 * value)], patch * 4));
  context.putImageData(four, 0, 0);
  canvas.dataset.values = JSON.stringify(Array.from(map, (value) => Number(value.toFixed(4))));
}

byId("map").addEventListener("change", drawMap);
byId("overlay").addEventListener("pointermove", (event) => {
  if (!opened || byId("pointing").hidden) return;
  const box = event.currentTarget.getBoundingClientRect(), [rows, columns] = opened.facts.grid;
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows), column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  choosePatch(Math.max(0, Math.min(rows - 1, row)), Math.max(0, Math.min(columns - 1, column)));
});
byId("overlay").addEventListener("keydown", (event) => {
  const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
  if (!step || !opened) return;
  event.preventDefault();
  const [rows, columns] = opened.facts.grid;
  choosePatch(Math.max(0, Math.min(rows - 1, Math.floor(chosenPatch / columns) + step[0])), Math.max(0, Math.min(columns - 1, (chosenPatch % columns) + step[1])));
});

function choosePatch(row, column) {
  const patch = row * opened.facts.grid[1] + column;
  if (patch === chosenPatch) return;
  chosenPatch = patch;
  drawMap();
}

// Where pictures come from.

function complain(error) {
  byId("problem").textContent = `That picture cannot be used: ${error?.message ?? error}.`;
  byId("problem").hidden = false;
}

async function take(file) {
  if (!file) return;
  stopCamera();
  try {
    const {image, notes} = await readImage(new Uint8Array(await file.arrayBuffer()));
    await classify(image, notes);
  } catch (error) {
    complain(error);
  }
}

const imageIn = (transfer) => [...(transfer?.files ?? [])][0];

byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
addEventListener("dragleave", () => byId("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  take(imageIn(event.dataTransfer));
});
addEventListener("paste", (event) => take(imageIn(event.clipboardData)));

let cameraStream = null;

byId("camera").hidden = !navigator.mediaDevices?.getUserMedia;
byId("camera").addEventListener("click", () => (cameraStream ? stopCamera() : startCamera()));

async function startCamera() {
  const video = byId("video");
  try {
    cameraStream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}, audio: false});
  } catch (error) {
    return complain(new Error(`there is no camera, or it may not be used (${error.name})`));
  }
  const mine = cameraStream;
  byId("camera").setAttribute("aria-pressed", "true");
  byId("camera").textContent = "Stop the camera";
  video.srcObject = mine;
  await video.play();
  while (cameraStream === mine) {
    try {
      if (opened && video.videoWidth) await classify(pixelsOf(video).image, []);
    } catch (error) {
      complain(error);
      stopCamera();
    }
    await new Promise((done) => setTimeout(done, CAMERA_MS));
  }
}

function stopCamera() {
  cameraStream?.getTracks().forEach((track) => track.stop());
  cameraStream = null;
  byId("video").srcObject = null;
  byId("camera").setAttribute("aria-pressed", "false");
  byId("camera").textContent = "Use the camera";
}

// Start.

byId("model").replaceChildren(...facts.models.map(({name}, index) => new Option(name, index)));
byId("choosing").hidden = facts.models.length < 2;
byId("model").addEventListener("change", (event) => load(facts.models[event.target.value]));
load(facts.models[0]);
