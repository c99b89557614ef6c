// Preprocessing of a model in JavaScript: resize, crop and normalisation, with Pillow's resampling to the byte.
//
// An image is {width, height, channels, data}: bytes 0..255, row by row, the channels of a pixel side by side. Of what
// artifact.json records under `preprocess` all fields count. No other file is needed, in a page as in Node.

const PRECISION_BITS = 32 - 8 - 2; // of Pillow's coefficients: a sum of bytes times coefficients fits 32 bits
const MOST_PIXELS = 2 ** 28; // of an image that is resized before its middle is cut out

const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));

// Name of a filter: how far it reaches, and its weight at a distance, both in pixels of the smaller image.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, hamming],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function hamming(x) {
  if (x === 0) return 1;
  return Math.abs(x) >= 1 ? 0 : sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI));
}

function cubic(distance) {
  const a = -0.5, x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/** The image at another size, as `Image.resize` of Pillow makes it. */
export function resize(image, width, height, filter) {
  if (image.width === width && image.height === height) return image;
  if (filter === "nearest") return nearest(image, width, height);
  if (!(filter in FILTERS)) throw new Error(`there is no filter ${filter}; known are nearest, ${Object.keys(FILTERS).join(", ")}`);
  const rows = (given) => (given.width === width ? given : resampleRows(given, width, coefficients(given.width, width, filter)));
  const columns = (given) => (given.height === height ? given : resampleColumns(given, height, coefficients(given.height, height, filter)));
  // Since 13.0; earlier versions shrink the rows first always, which rounds some bytes to their neighbour.
  const lost = image.height - height, columnsFirst = lost > 0 && lost > 2 * (image.width - width);
  return columnsFirst ? rows(columns(image)) : columns(rows(image));
}

/** For each of `target` samples the first source sample, and the fixed-point weights from there on. */
function coefficients(source, target, filter) {
  const [reach, weight] = FILTERS[filter];
  const scale = source / target, widened = Math.max(scale, 1), support = reach * widened, inverse = 1 / widened;
  const found = [];
  for (let place = 0; place < target; place++) {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(source, Math.trunc(centre + support + 0.5));
    const weights = new Float64Array(end - start);
    let sum = 0;
    for (let index = 0; index < weights.length; index++) {
      weights[index] = weight((index + start - centre + 0.5) * inverse);
      sum += weights[index];
    }
    const fixed = Int32Array.from(weights, (value) => {
      const scaled = (sum === 0 ? value : value / sum) * (1 << PRECISION_BITS);
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    found.push({start, fixed});
  }
  return found;
}

const HALF = 1 << (PRECISION_BITS - 1);

function resampleRows({width, height, channels, data}, target, weights) {
  const result = new Uint8ClampedArray(target * height * channels);
  let out = 0;
  for (let row = 0; row < height; row++) {
    const begin = row * width * channels;
    for (const {start, fixed} of weights) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = HALF, at = begin + start * channels + channel;
        for (let index = 0; index < fixed.length; index++, at += channels) sum += data[at] * fixed[index];
        result[out++] = sum >> PRECISION_BITS;
      }
    }
  }
  return {width: target, height, channels, data: result};
}

function resampleColumns({width, channels, data}, target, weights) {
  const stride = width * channels, result = new Uint8ClampedArray(stride * target), sums = new Int32Array(stride);
  weights.forEach(({start, fixed}, row) => {
    sums.fill(HALF);
    for (let index = 0; index < fixed.length; index++) {
      const weight = fixed[index], begin = (start + index) * stride;
      for (let place = 0; place < stride; place++) sums[place] += data[begin + place] * weight;
    }
    for (let place = 0, out = row * stride; place < stride; place++) result[out + place] = sums[place] >> PRECISION_BITS;
  });
  return {width, height: target, channels, data: result};
}

function nearest({width, height, channels, data}, targetWidth, targetHeight) {
  const columns = nearestPlaces(width, targetWidth), rows = nearestPlaces(height, targetHeight);
  const result = new Uint8ClampedArray(targetWidth * targetHeight * channels);
  let out = 0;
  for (const row of rows)
    for (const column of columns)
      for (let channel = 0; channel < channels; channel++) result[out++] = data[(row * width + column) * channels + channel];
  return {width: targetWidth, height: targetHeight, channels, data: result};
}

function nearestPlaces(source, target) {
  const scale = source / target, places = [];
  // Pillow adds the scale up, whose rounding decides where a sample falls between two pixels.
  for (let place = 0, position = scale * 0.5; place < target; place++, position += scale) places.push(Math.trunc(position));
  return places;
}

/** To the nearest integer, halves to the even one, as Python rounds. */
export function roundHalfEven(value) {
  const below = Math.floor(value), rest = value - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

/** The [height, width] that an image of `size` is resized to, before any crop. */
export function resizedSize([height, width], recorded, imageSize) {
  const {resize: wanted, keep_aspect: keepAspect} = recorded;
  if (wanted === null || wanted === undefined) return imageSize;
  if (Array.isArray(wanted)) {
    if (!keepAspect) return wanted;
    const ratio = Math.min(height / wanted[0], width / wanted[1]);
    return [roundHalfEven(height / ratio), roundHalfEven(width / ratio)];
  }
  const shorter = Math.min(height, width);
  return [Math.floor((wanted * height) / shorter), Math.floor((wanted * width) / shorter)];
}

/** Where the middle `wanted` pixels of an edge begin; negative where the edge is shorter. */
export function cropStart(size, wanted) {
  return roundHalfEven((size - wanted) / 2);
}

/** A part of an image; black where it reaches beyond. */
export function crop({width, height, channels, data}, top, left, targetHeight, targetWidth) {
  const result = new Uint8ClampedArray(targetHeight * targetWidth * channels);
  const first = Math.max(0, -left), last = Math.min(targetWidth, width - left);
  for (let row = Math.max(0, -top); row < Math.min(targetHeight, height - top) && first < last; row++) {
    const begin = ((top + row) * width + left) * channels;
    result.set(data.subarray(begin + first * channels, begin + last * channels), (row * targetWidth + first) * channels);
  }
  return {width: targetWidth, height: targetHeight, channels, data: result};
}

/** An image of three channels as one of luma (ITU-R 601-2, Pillow's mode L). */
export function toGray({width, height, channels, data}) {
  const result = new Uint8ClampedArray(width * height);
  for (let place = 0, at = 0; place < result.length; place++, at += channels)
    result[place] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 0x8000) >> 16;
  return {width, height, channels: 1, data: result};
}

/**
 * An upright image of three channels as the pixels that the model takes, resized and cropped, not yet normalised.
 *
 * @param image of any size.
 * @param recorded `preprocess` of artifact.json.
 * @param imageSize [height, width] of the model.
 */
export function toPixels(image, recorded, imageSize) {
  const channels = recorded.mean.length, whole = recorded.input_size ?? imageSize;
  if (channels !== 1 && channels !== 3) throw new Error(`the model takes ${channels} channels, and images have 1 or 3`);
  const [height, width] = resizedSize([image.height, image.width], recorded, whole);
  if (height * width > MOST_PIXELS)
    throw new Error(`the image has ${image.height}x${image.width} pixels (height x width), and the resize would make ${height}x${width} of them; cut out what is to be seen first`);
  let result = resize(channels === 1 ? toGray(image) : image, width, height, recorded.interpolation);
  if (recorded.crop) result = crop(result, cropStart(height, whole[0]), cropStart(width, whole[1]), whole[0], whole[1]);
  if (result.height !== whole[0] || result.width !== whole[1])
    throw new Error(`the recorded resize gives ${result.height}x${result.width} pixels (height x width), the model takes ${whole[0]}x${whole[1]}`);
  return whole === imageSize ? result : crop(result, 0, 0, imageSize[0], imageSize[1]);
}

/** Pixels 0..255, channels side by side, normalised in float32: (pixel / 255 - mean) / std. */
export function normalize(data, recorded) {
  const channels = recorded.mean.length;
  const scale = recorded.std.map((std) => Math.fround(1 / (255 * std)));
  const offset = recorded.mean.map((mean, channel) => Math.fround(-mean / recorded.std[channel]));
  const result = new Float32Array(data.length);
  for (let place = 0; place < data.length; place++)
    result[place] = Math.fround(data[place] * scale[place % channels]) + offset[place % channels];
  return result;
}

/** Numbers with the channels side by side as one plane a channel: NHWC to NCHW, of one image. */
export function toPlanes(values, channels) {
  const result = new values.constructor(values.length), plane = values.length / channels;
  for (let place = 0; place < values.length; place++) result[(place % channels) * plane + Math.floor(place / channels)] = values[place];
  return result;
}
