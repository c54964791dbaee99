// The initial noise: the same numbers as torch.randn with torch.Generator().manual_seed(seed) on a CPU.
// So a seed gives the same picture here and in the kit's Python.

/** Mersenne Twister (Matsumoto and Nishimura 1998), 32 bits a call. */
function mersenneTwister(seed) {
  const N = 624, M = 397;
  const state = new Uint32Array(N);
  state[0] = seed;
  for (let i = 1; i < N; i++) {
    const previous = state[i - 1] ^ (state[i - 1] >>> 30);
    state[i] = Math.imul(1812433253, previous) + i;
  }
  let next = N;
  return () => {
    if (next === N) {
      for (let i = 0; i < N; i++) {
        const bits = (state[i] & 0x80000000) | (state[(i + 1) % N] & 0x7fffffff);
        state[i] = state[(i + M) % N] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let y = state[next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** `count` normal numbers, a multiple of 16: Box-Muller on blocks of 16, the layout of torch's CPU kernel. */
export function normals(count, seed) {
  if (count % 16) throw new Error(`${count} numbers: give a multiple of 16`);
  const random = mersenneTwister(seed);
  const x = new Float32Array(count);
  for (let i = 0; i < count; i++) x[i] = (random() & 0xffffff) / 0x1000000; // uniform in [0, 1), 24 bits
  for (let block = 0; block < count; block += 16) {
    for (let i = block; i < block + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - x[i]));
      const angle = 2 * Math.PI * x[i + 8];
      x[i] = radius * Math.cos(angle);
      x[i + 8] = radius * Math.sin(angle);
    }
  }
  return x;
}
