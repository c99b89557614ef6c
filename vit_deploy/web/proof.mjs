// Outputs of a model in the page held against what the float64 reference answers, as `vit-deploy verify` does it.

const LIMITS = {
  max_abs: {words: "largest difference", unit: "", atMost: true},
  snr_db: {words: "signal to noise ratio", unit: " dB", atMost: false},
  centred_cosine: {words: "cosine about the reference's mean", unit: "", atMost: false},
  flips: {words: "fraction of changed first classes", unit: "", atMost: true},
};

/**
 * Whether outputs are the reference's: {ok, failures, metrics}.
 *
 * @param outputs of all images, one image after the other.
 * @param reference likewise, in float64.
 * @param count of images.
 * @param tolerance limit of each metric that counts.
 * @param noise by which a first class may lead and still change.
 */
export function judge(outputs, reference, count, tolerance, noise) {
  if (outputs.length !== reference.length)
    return {ok: false, failures: [`the output has ${outputs.length} values, expected ${reference.length}`], metrics: {}};
  const bad = outputs.reduce((sum, value) => sum + !Number.isFinite(value), 0);
  if (bad) return {ok: false, failures: [`${bad} of ${outputs.length} outputs are NaN or infinite`], metrics: {}};
  const metrics = measure(outputs, reference, count, noise), failures = [];
  for (const [name, limit] of Object.entries(tolerance)) {
    const kind = LIMITS[name], value = metrics[name];
    if (kind === undefined) continue; // of tokens, which logits have not
    const held = `the tolerance of ${figure(limit)}${kind.unit}`;
    if (value === null) {
      if (metrics.max_abs !== 0) failures.push(`there is no ${kind.words}, and it is held to ${figure(limit)}${kind.unit}`);
    } else if (!(kind.atMost ? value <= limit : value >= limit)) {
      failures.push(`${kind.words} ${figure(value)}${kind.unit} is ${kind.atMost ? "above" : "below"} ${held}`);
    }
  }
  return {ok: !failures.length, failures, metrics};
}

/** The metrics that logits are held to; null where one does not apply. */
export function measure(outputs, reference, count, noise) {
  const classes = reference.length / count, mean = new Float64Array(classes);
  for (let place = 0; place < reference.length; place++) mean[place % classes] += reference[place] / count;
  let largest = 0, noisePower = 0, power = 0, product = 0, own = 0, true_ = 0;
  for (let place = 0; place < reference.length; place++) {
    const difference = outputs[place] - reference[place], middle = mean[place % classes];
    largest = Math.max(largest, Math.abs(difference));
    noisePower += difference ** 2;
    power += reference[place] ** 2;
    product += (outputs[place] - middle) * (reference[place] - middle);
    own += (outputs[place] - middle) ** 2;
    true_ += (reference[place] - middle) ** 2;
  }
  const lengths = Math.sqrt(own) * Math.sqrt(true_);
  let flips = 0;
  for (let image = 0; image < count; image++) {
    const [first, second] = leaders(reference, image * classes, classes);
    if (classes > 1 && leaders(outputs, image * classes, classes)[0].place !== first.place && first.value - second.value > noise) flips++;
  }
  return {
    max_abs: largest,
    snr_db: noisePower && power ? 10 * Math.log10(power / noisePower) : null,
    centred_cosine: lengths ? product / lengths : null,
    flips: flips / count,
  };
}

function leaders(values, start, length) {
  let first = {place: -1, value: -Infinity}, second = first;
  for (let place = 0; place < length; place++) {
    const value = values[start + place];
    if (value > first.value) [first, second] = [{place, value}, first];
    else if (value > second.value) second = {place, value};
  }
  return [first, second];
}

/** A number with three digits, as Python writes it with `.3g`. */
export function figure(value) {
  const [digits, exponent] = value.toExponential(2).split("e"), power = Number(exponent);
  if (power >= -4 && power < 3) return String(Number(value.toPrecision(3)));
  return `${Number(digits)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/** The likeliest classes: [{index, probability, logit}], best first; of the same logits, the first class is. */
export function topClasses(logits, count, sigmoid) {
  const values = Array.from(logits, Number), most = Math.max(...values);
  const powers = values.map((value) => (sigmoid ? 0.5 * (1 + Math.tanh(0.5 * value)) : Math.exp(value - most)));
  const sum = sigmoid ? 1 : powers.reduce((total, value) => total + value, 0);
  const order = values.map((_, index) => index).sort((one, other) => values[other] - values[one]);
  return order.slice(0, count).map((index) => ({index, probability: powers[index] / sum, logit: values[index]}));
}
