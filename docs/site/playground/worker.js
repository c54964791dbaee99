// Runs the model beside the page, so that sliders stay smooth. Only the last request of each kind counts.

import { Model } from './model.js';

const latest = {}; // kind of a request -> its number
let model;
let queue = Promise.resolve();

class Outdated extends Error {}

self.onmessage = ({ data: request }) => {
  latest[request.kind] = request.number;
  queue = queue.then(() => answer(request)).catch((error) => {
    if (!(error instanceof Outdated)) self.postMessage({ ...labels(request), failed: String(error.message ?? error) });
  });
};

const labels = ({ kind, number }) => ({ kind, number });

async function answer(request) {
  if (request.kind === 'load') {
    model = await Model.load('model', (fraction) => self.postMessage({ ...labels(request), fraction }));
    self.postMessage({ ...labels(request), table: model.table });
    return;
  }
  const stop = () => {
    if (latest[request.kind] !== request.number) throw new Outdated();
  };
  const start = performance.now();
  await messages();
  stop();
  const after = async (step) => {
    self.postMessage({ ...labels(request), step });
    await messages();
    stop();
  };
  const pictures = await model.generate({ ...request, after });
  const milliseconds = performance.now() - start;
  self.postMessage({ ...labels(request), pictures, milliseconds }, pictures.map((one) => one.buffer));
}

/** Let messages in that have arrived meanwhile. */
function messages() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
