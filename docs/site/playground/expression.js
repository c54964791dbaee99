// What an expression means, in closed form, as in gen_affect_lib/encoders/affect.py: a face shows one of the words w, with
// vector v_w, at a random strength s and with Gaussian noise. Bayes' rule gives the probabilities of the words.

const logSumExp = (terms) => {
  const most = Math.max(...terms);
  return most + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - most), 0));
};
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

/** p(w | x) of an expression vector x (21 numbers): the words of the table, and last the neutral face. */
export function posterior(vector, { words, strengths, spread }) {
  const square = dot(vector, vector);
  const logits = words.map(({ vector: word }) => {
    const along = dot(vector, word), length = dot(word, word);
    const terms = strengths.map((s) => -(square - 2 * s * along + s * s * length) / (2 * spread * spread));
    return logSumExp(terms) - Math.log(strengths.length);
  });
  logits.push(-square / (2 * spread * spread));
  const total = logSumExp(logits);
  return logits.map((logit) => Math.exp(logit - total));
}

/** Valence and arousal: the means of those of the words. The neutral face counts as (0, 0). */
export function affect(probabilities, { words }) {
  return [0, 1].map((n) => words.reduce((sum, word, w) => sum + probabilities[w] * word.affect[n], 0));
}

/** What the fusion reads, 48 numbers: the vector, valence and arousal, and the probabilities of the 25 groups. */
export function representation(vector, table) {
  const probabilities = posterior(vector, table);
  const groups = new Array(table.groups.length).fill(0);
  table.words.forEach((word, w) => (groups[word.group] += probabilities[w]));
  return Float32Array.from([...vector, ...affect(probabilities, table), ...groups]);
}
