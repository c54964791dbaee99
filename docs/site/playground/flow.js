// Rectified flow: the schedule, the Euler sampler and guidance, as in gen_affect_lib/flow.py.
//
//   sigma = 0 is the data, sigma = 1 the noise;  velocity = noise - data = d x_sigma / d sigma
//
// So sampling goes down in sigma: x += (sigma_next - sigma) * velocity, with a negative difference.

/** The sigmas of a sampler: steps + 1 numbers, from 1 down to 0. */
export function schedule(steps, shift) {
  return Array.from({ length: steps + 1 }, (_, n) => {
    const sigma = 1 - n / steps;
    return (shift * sigma) / (1 + (shift - 1) * sigma);
  });
}

/**
 * Integrate a velocity field from noise to data with Euler steps.
 * velocity: (x, sigma) -> velocity, a promise; noise: Float32Array; after(step): called after each step.
 */
export async function sample(velocity, noise, sigmas, after = async () => {}) {
  const x = noise.slice();
  for (let step = 0; step + 1 < sigmas.length; step++) {
    const v = await velocity(x, sigmas[step]);
    const change = sigmas[step + 1] - sigmas[step];
    for (let i = 0; i < x.length; i++) x[i] += change * v[i];
    await after(step + 1);
  }
  return x;
}

/**
 * Guidance with two scales, u + i (v_i - u) + e (v - v_i), as weights of the velocities u (no condition), v_i (identity)
 * and v (both): 1 - i, i - e and e. Conditions of weight 0 need not be computed.
 */
export function guidance(identityScale, expressionScale) {
  return [
    { keepIdentity: false, keepExpression: false, weight: 1 - identityScale },
    { keepIdentity: true, keepExpression: false, weight: identityScale - expressionScale },
    { keepIdentity: true, keepExpression: true, weight: expressionScale },
  ].filter(({ weight }) => weight !== 0);
}
