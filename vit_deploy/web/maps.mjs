// What a model looks at, and which patches it takes for alike: values for each patch of the grid, 0 to 1.

/**
 * Attention of the first token to each patch, the mean of the heads: of an output (heads, tokens, tokens).
 *
 * A model without a class token has no such row; there, it is what all patches attend to, on average.
 */
export function attentionMap(values, heads, prefix, patches, hasClassToken) {
  const tokens = prefix + patches, result = new Float32Array(patches);
  const rows = hasClassToken ? [0] : Array.from({length: patches}, (_, index) => prefix + index);
  for (let head = 0; head < heads; head++)
    for (const row of rows)
      for (let patch = 0; patch < patches; patch++) result[patch] += values[(head * tokens + row) * tokens + prefix + patch];
  return spread(result);
}

/** Cosine of each patch's token with that of one patch: of an output (patches, size) or (rows, columns, size). */
export function similarityMap(values, patches, chosen) {
  const size = values.length / patches, result = new Float32Array(patches);
  const length = (patch) => Math.hypot(...values.subarray(patch * size, (patch + 1) * size)) || 1;
  const own = length(chosen);
  for (let patch = 0; patch < patches; patch++) {
    let product = 0;
    for (let place = 0; place < size; place++) product += values[patch * size + place] * values[chosen * size + place];
    result[patch] = product / (length(patch) * own);
  }
  return spread(result);
}

function spread(values) {
  const least = Math.min(...values), most = Math.max(...values);
  return values.map((value) => (most > least ? (value - least) / (most - least) : 0));
}
