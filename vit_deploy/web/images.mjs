// Image files as upright pixels of three channels in a page, as Pillow reads them, or what differs in words.
//
// PNG files are decoded here. Others are decoded by the browser, without what would change their pixels: the colour
// profile and the orientation are taken out of the bytes first, and the orientation is applied here.

import {decodePng, isPng} from "./png.mjs";

const SAVE = "save it as PNG or JPEG";
const ORIENTATION = 0x0112; // Exif's tag
const SHORT = 3; // Exif's type of 16 bits
const FRAMES = new Set([0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf]); // of JPEG

const text = (bytes, start, length) => String.fromCharCode(...bytes.subarray(start, start + length)); // 64 kB at most

/**
 * An image file as {image, notes}: the pixels {width, height, channels: 3, data}, and what makes them other than
 * Pillow's, in words.
 */
export async function readImage(bytes) {
  if (isPng(bytes)) {
    const image = await decodePng(bytes);
    return {image: upright(image, image.exif ? orientationIn(image.exif) : 1), notes: []};
  }
  const {kind, orientation, neutral, notes} = headerFacts(bytes);
  const {image, transparent} = await decodeInBrowser(neutral, kind);
  if (transparent) notes.push("some pixels are transparent, whose colours the browser does not keep: save it as PNG");
  return {image: upright(image, orientation), notes};
}

/**
 * What the header of a file says: {kind, orientation, neutral, notes}. `neutral` are its bytes without colour profile
 * and orientation.
 */
export function headerFacts(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return jpegFacts(bytes);
  if (text(bytes, 0, 4) === "RIFF" && text(bytes, 8, 4) === "WEBP") return webpFacts(bytes);
  const starts = {GIF8: "GIF", BM: "BMP", "II*\0": "TIFF", "MM\0*": "TIFF", P5: "PGM", P6: "PPM"};
  const kind = Object.keys(starts).find((start) => text(bytes, 0, start.length) === start);
  const notes = text(bytes, 4, 4) === "ftyp" ? ["the browser decodes this kind of file in its own way; PNG and JPEG are read exactly"] : [];
  return {kind: starts[kind] ?? "", orientation: 1, neutral: bytes, notes};
}

function jpegFacts(bytes) {
  const neutral = bytes.slice(), notes = [];
  let orientation = 1;
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const marker = bytes[at + 1];
    if (marker === 0xff) { at++; continue; }
    const length = (bytes[at + 2] << 8) | bytes[at + 3], body = at + 4;
    if (marker === 0xda || length < 2) break;
    if (marker === 0xe1 && text(bytes, body, 6) === "Exif\0\0") {
      orientation = orientationIn(bytes.subarray(body + 6, at + 2 + length));
      neutral.fill(0x20, body, body + 4);
    }
    const said = marker === 0xe1 && orientation === 1 && text(bytes, body, 5) === "http:" ? text(bytes, body, length - 2) : "";
    orientation = Number(said.match(/tiff:Orientation(?:="|>)([1-8])/)?.[1] ?? orientation);
    if (marker === 0xe2 && text(bytes, body, 12) === "ICC_PROFILE\0") neutral.fill(0x20, body, body + 11);
    if (FRAMES.has(marker)) {
      if (bytes[body] !== 8) throw new Error(`the JPEG file has ${bytes[body]} bits a channel, which is not read; ${SAVE} of 8 bits`);
      if (bytes[body + 5] === 4) notes.push("its colours are CMYK, which browsers turn into RGB in their own way: save it as RGB");
    }
    at += 2 + length;
  }
  return {kind: "JPEG", orientation, neutral, notes};
}

function webpFacts(bytes) {
  const neutral = bytes.slice(), view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const notes = [];
  let orientation = 1;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const name = text(bytes, at, 4), length = view.getUint32(at + 4, true);
    if (name === "ICCP" || name === "EXIF") neutral.fill(0x58, at, at + 4);
    if (name === "VP8X") neutral[at + 8] &= ~0x28; // says that there are a profile and Exif
    if (name === "EXIF") {
      const start = text(bytes, at + 8, 6) === "Exif\0\0" ? at + 14 : at + 8;
      orientation = orientationIn(bytes.subarray(start, at + 8 + length));
    }
    at += 8 + length + (length & 1);
  }
  return {kind: "WebP", orientation, neutral, notes};
}

/** The orientation 1 to 8 in an Exif block, 1 where it says none. */
export function orientationIn(exif) {
  const order = text(exif, 0, 2), little = order === "II";
  if (exif.length < 8 || (!little && order !== "MM")) return 1;
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const start = view.getUint32(4, little);
  const entries = start + 2 <= exif.length ? view.getUint16(start, little) : 0;
  for (let index = 0; index < entries; index++) {
    const at = start + 2 + index * 12;
    if (at + 12 > exif.length) break;
    if (view.getUint16(at, little) !== ORIENTATION || view.getUint16(at + 2, little) !== SHORT) continue;
    const found = view.getUint16(at + 8, little);
    return found >= 1 && found <= 8 ? found : 1;
  }
  return 1;
}

/** An image turned and mirrored as an Exif orientation asks for. */
export function upright(image, orientation) {
  const {width, height, channels, data} = image;
  if (orientation === 1) return {width, height, channels, data};
  const turned = orientation >= 5, mirrorX = [2, 3, 7, 8].includes(orientation), mirrorY = [3, 4, 6, 7].includes(orientation);
  const [wide, tall] = turned ? [height, width] : [width, height];
  const result = new Uint8ClampedArray(data.length);
  let out = 0;
  for (let row = 0; row < tall; row++)
    for (let column = 0; column < wide; column++) {
      const [x, y] = turned ? [row, column] : [column, row];
      const at = ((mirrorY ? height - 1 - y : y) * width + (mirrorX ? width - 1 - x : x)) * channels;
      for (let channel = 0; channel < channels; channel++) result[out++] = data[at + channel];
    }
  return {width: wide, height: tall, channels, data: result};
}

async function decodeInBrowser(bytes, kind) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), {premultiplyAlpha: "none", colorSpaceConversion: "none", imageOrientation: "none"});
  } catch {
    throw new Error(`this browser cannot read the file${kind ? ` (${kind})` : ""}, or it is no image; ${SAVE}`);
  }
  return pixelsOf(bitmap);
}

/** The pixels of what can be drawn, a bitmap or a video: {image, transparent}. */
export function pixelsOf(drawn) {
  const width = drawn.videoWidth ?? drawn.width, height = drawn.videoHeight ?? drawn.height;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true, colorSpace: "srgb"});
  context.drawImage(drawn, 0, 0);
  const four = context.getImageData(0, 0, width, height).data, data = new Uint8ClampedArray(width * height * 3);
  let transparent = false;
  for (let at = 0, out = 0; at < four.length; at += 4) {
    data[out++] = four[at];
    data[out++] = four[at + 1];
    data[out++] = four[at + 2];
    transparent ||= four[at + 3] !== 255;
  }
  return {image: {width, height, channels: 3, data}, transparent};
}
