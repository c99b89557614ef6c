// PNG files as the pixels that Pillow reads: colours under transparency kept, 16 bits by their high byte.
//
// Browsers multiply colours by their opacity and apply colour profiles before a page sees a pixel; this does neither.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}; // a pixel, by type of colour
const DEPTHS = {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]};
const PALETTE = 3;
const READABLE_PIXELS = 178956970; // that Pillow reads without an error
// Of the seven images of an interlaced file: first column, first row, and the steps from there.
const PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/** Whether a file begins as a PNG does. */
export function isPng(bytes) {
  return SIGNATURE.every((value, place) => bytes[place] === value);
}

/**
 * The pixels of a PNG, not yet turned upright: {width, height, channels: 3, data, exif}, `exif` the bytes of its Exif
 * block or null.
 */
export async function decodePng(bytes) {
  const {header, palette, parts, exif} = chunks(bytes);
  const {width, height, depth, colour, interlaced} = header;
  const inflated = await inflate(parts);
  const result = new Uint8ClampedArray(width * height * 3);
  let at = 0;
  for (const [left, top, across, down] of interlaced ? PASSES : [[0, 0, 1, 1]]) {
    const columns = Math.ceil((width - left) / across), rows = Math.ceil((height - top) / down);
    if (columns <= 0 || rows <= 0) continue;
    const length = Math.ceil((columns * SAMPLES[colour] * depth) / 8);
    if (at + rows * (length + 1) > inflated.length) throw new Error("the PNG file is cut off");
    const lines = unfiltered(inflated, at, rows, length, Math.max(1, (SAMPLES[colour] * depth) >> 3));
    at += rows * (length + 1);
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        put(result, ((top + row * down) * width + left + column * across) * 3, lines, row * length, column, header, palette);
  }
  return {width, height, channels: 3, data: result, exif};
}

function put(result, place, lines, begin, column, {depth, colour}, palette) {
  if (depth < 8) {
    const value = (lines[begin + ((column * depth) >> 3)] >> (8 - depth - ((column * depth) & 7))) & ((1 << depth) - 1);
    if (colour === PALETTE) for (let band = 0; band < 3; band++) result[place + band] = palette[value * 3 + band] ?? 0;
    else result.fill((value * 255) / ((1 << depth) - 1), place, place + 3);
    return;
  }
  const size = depth >> 3, at = begin + column * SAMPLES[colour] * size;
  if (colour === PALETTE) for (let band = 0; band < 3; band++) result[place + band] = palette[lines[at] * 3 + band] ?? 0;
  else for (let band = 0; band < 3; band++) result[place + band] = lines[at + (SAMPLES[colour] < 3 ? 0 : band * size)];
}

function chunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), parts = [];
  let header = null, palette = [], exif = null;
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at), name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length) break;
    if (name === "IHDR") header = readHeader(body);
    if (name === "PLTE") palette = body;
    if (name === "IDAT") parts.push(body);
    if (name === "eXIf") exif = body;
    if (name === "IEND") break;
    at += 12 + length;
  }
  if (header === null || !parts.length) throw new Error("the PNG file is cut off");
  return {header, palette, parts, exif};
}

function readHeader(body) {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const [depth, colour, , , interlaced] = body.subarray(8);
  const header = {width: view.getUint32(0), height: view.getUint32(4), depth, colour, interlaced};
  if (!DEPTHS[colour]?.includes(depth)) throw new Error(`the PNG file has colours of type ${colour} with ${depth} bits, which do not exist`);
  if (header.width * header.height > READABLE_PIXELS) throw new Error(`the PNG file has ${header.height}x${header.width} pixels (height x width), which are too many`);
  return header;
}

async function inflate(parts) {
  try {
    const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new Error(`the PNG file is damaged: ${error.message}`);
  }
}

/** The lines of an image without the filters that made them easier to compress; `step` bytes lie between neighbours. */
function unfiltered(source, begin, rows, length, step) {
  const result = new Uint8Array(rows * length);
  for (let row = 0; row < rows; row++) {
    const from = begin + row * (length + 1), filter = source[from], to = row * length;
    if (filter > 4) throw new Error(`the PNG file is damaged: there is no filter ${filter}`);
    for (let place = 0; place < length; place++) {
      const left = place >= step ? result[to + place - step] : 0;
      const up = row ? result[to + place - length] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) guess = paeth(left, up, row && place >= step ? result[to + place - length - step] : 0);
      result[to + place] = source[from + 1 + place] + guess;
    }
  }
  return result;
}

function paeth(left, up, corner) {
  const toLeft = Math.abs(up - corner), toUp = Math.abs(left - corner), toCorner = Math.abs(left + up - 2 * corner);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}
