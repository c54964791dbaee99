// The three networks of `python -m gen_affect_lib export onnx`, and how a picture is made with them.
//
// Letters: N expressions, G conditions that guidance compares, B = G N images of a batch: all expressions under the first
// condition, then all under the second, and so on.

import * as ort from './ort/ort.wasm.min.mjs';
import { representation } from './expression.js';
import { guidance, sample, schedule } from './flow.js';
import { normals } from './noise.js';

ort.env.wasm.wasmPaths = new URL('./ort/', import.meta.url).href;
// Several threads need memory that is shared between them, which browsers allow only on isolated pages.
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

const FILES = ['fusion', 'transformer', 'decoder'];
const floats = (data, shape) => new ort.Tensor('float32', data, shape);

/** `count` copies of some numbers, one after another. */
function repeat(numbers, count) {
  const result = new Float32Array(numbers.length * count);
  for (let n = 0; n < count; n++) result.set(numbers, n * numbers.length);
  return result;
}

export class Model {
  constructor(table, sessions) {
    Object.assign(this, { table }, sessions);
  }

  /** Fetch the files; progress(fraction) is called from 0 to 1. */
  static async load(folder, progress = () => {}) {
    const table = await (await fetched(`${folder}/model.json`)).json();
    const responses = await Promise.all(FILES.map((name) => fetched(`${folder}/${name}.onnx`)));
    const total = responses.reduce((sum, one) => sum + Number(one.headers.get('content-length')), 0);
    let arrived = 0;
    const sessions = {};
    for (const [n, response] of responses.entries()) {
      const bytes = await readAll(response, (more) => progress(total ? Math.min(1, (arrived += more) / total) : 0));
      sessions[FILES[n]] = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
    }
    return new Model(table, sessions);
  }

  /**
   * Pictures of one person with N expressions.
   *
   * identity: Float32Array of the identity tokens. vectors: N arrays of 21 numbers. consistent: whether all images attend
   * to the first one's tokens and start from its noise; otherwise each has noise of its own.
   * Returns N Uint8ClampedArrays of RGBA pixels, row by row.
   */
  async generate({ identity, vectors, identityScale, expressionScale, steps, seed, consistent, after }) {
    const { latents: shape, shift } = this.table;
    const N = vectors.length, numbers = shape.reduce((a, b) => a * b);
    const conditions = guidance(identityScale, expressionScale);
    const expressions = new Float32Array(vectors.flatMap((vector) => [...representation(vector, this.table)]));
    const { tokens, pooled } = await this.fuse(identity, expressions, conditions, N);
    const noise = normals(N * numbers, seed);
    if (consistent) noise.set(repeat(noise.subarray(0, numbers), N));
    const velocity = (x, sigma) => this.guidedVelocity(x, sigma, tokens, pooled, conditions, consistent);
    const latents = await sample(velocity, noise, schedule(steps, shift), after);
    const { pictures, plain } = await this.decoder.run({
      latents: floats(latents, [N, ...shape]),
      identity: floats(repeat(identity, N), [N, ...this.table.identity]),
      expression: floats(expressions, [N, expressions.length / N]),
    });
    // The refiner reads identity and expression, so a picture that ignores one of them is not refined.
    return pixels(identityScale === 0 || expressionScale === 0 ? plain : pictures);
  }

  /** Condition tokens (B, M, D) and pooled vectors (B, D). They are the same at every step. */
  async fuse(identity, expressions, conditions, N) {
    const B = conditions.length * N, [views, channels] = this.table.identity;
    const keep = (name) =>
      new ort.Tensor('bool', Uint8Array.from(conditions.flatMap((one) => new Array(N).fill(+one[name]))), [B]);
    return this.fusion.run({
      identity: floats(repeat(identity, B), [B, views, channels]),
      expression: floats(repeat(expressions, conditions.length), [B, expressions.length / N]),
      keep_identity: keep('keepIdentity'),
      keep_expression: keep('keepExpression'),
    });
  }

  /** The weighted sum of the velocities under all conditions, for x of N images. */
  async guidedVelocity(x, sigma, tokens, pooled, conditions, consistent) {
    const { latents: shape, face_tokens: face, face_above: above } = this.table;
    const N = x.length / shape.reduce((a, b) => a * b), B = conditions.length * N;
    // Consistent attention: the anchor is the first image under the same condition. Near the data (sigma at most `above`)
    // the tokens of brows, eyes and mouth are not shared, so each image keeps its expression.
    const anchor = BigInt64Array.from({ length: B }, (_, b) => BigInt(consistent ? b - (b % N) : b));
    const shared = Uint8Array.from(face, (inFace) => +(consistent && (sigma > above || !inFace)));
    const { velocity } = await this.transformer.run({
      latents: floats(repeat(x, conditions.length), [B, ...shape]),
      tokens,
      pooled,
      sigma: floats(new Float32Array(B).fill(sigma), [B]),
      anchor: new ort.Tensor('int64', anchor, [B]),
      shared: new ort.Tensor('bool', shared, [face.length]),
    });
    const sum = new Float32Array(x.length);
    conditions.forEach(({ weight }, g) => {
      for (let i = 0; i < x.length; i++) sum[i] += weight * velocity.data[g * x.length + i];
    });
    return sum;
  }
}

/** Pictures (N, 3, S, S) in [-1, 1] to N arrays of RGBA pixels. */
function pixels({ data, dims: [N, , S] }) {
  const area = S * S;
  return Array.from({ length: N }, (_, n) => {
    const rgba = new Uint8ClampedArray(4 * area).fill(255);
    for (let channel = 0; channel < 3; channel++) {
      const plane = data.subarray((3 * n + channel) * area, (3 * n + channel + 1) * area);
      for (let i = 0; i < area; i++) rgba[4 * i + channel] = (plane[i] + 1) * 127.5; // clamps and rounds
    }
    return rgba;
  });
}

async function fetched(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address} did not arrive (${response.status})`);
  return response;
}

async function readAll(response, arrived) {
  const parts = [], reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    arrived(value.length);
  }
}
