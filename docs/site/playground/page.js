// The page: controls, pictures and downloads. The model runs in worker.js.

import { affect, posterior } from './expression.js';

const $ = (id) => document.getElementById(id);
const MOST = 12; // pictures of a set
const chosenTheme = localStorage.getItem('mode'); // what the pages of the site keep
if (chosenTheme === 'light' || chosenTheme === 'dark') document.documentElement.dataset.theme = chosenTheme;

const worker = new Worker('worker.js', { type: 'module' });
const listeners = new Map(); // kind of a request -> what its answers call
let table, people, count = 0;
let vector = new Array(21).fill(0); // the expression that the sliders show
let set = []; // words of the set

/** Send a request; the answers of an older one of the same kind are ignored. */
function ask(kind, request, on) {
  const number = ++count;
  listeners.set(kind, { number, on });
  worker.postMessage({ ...request, kind, number });
}

worker.onmessage = ({ data }) => {
  const listener = listeners.get(data.kind);
  if (listener?.number === data.number) listener.on(data);
};
worker.onerror = (event) => fail(event.message);

function fail(message) {
  $('status').textContent = `It did not work: ${message}`;
  $('status').className = 'failed';
}

// --- the person -----------------------------------------------------------------------------------------------------

function showPeople() {
  $('people').innerHTML = people.map(({ alt }, n) =>
    `<label><input type="radio" name="person" value="${n}" aria-label="Person ${n + 1}: ${alt}" ${n ? '' : 'checked'}>` +
    `<img src="people/${n}.png" width="128" height="128" alt=""></label>`).join('');
  $('other').innerHTML += people.map(({ alt }, n) => `<option value="${n}">person ${n + 1}: ${alt}</option>`).join('');
}

const person = () => Number(document.querySelector('input[name=person]:checked').value);

/** Identity tokens: those of the person, or a mean of two people's, with the norm that tokens have. */
function identity() {
  const one = people[person()].identity;
  if ($('other').value === '') return Float32Array.from(one);
  const other = people[Number($('other').value)].identity, share = Number($('blend').value);
  const mean = one.map((x, i) => (1 - share) * x + share * other[i]);
  const [views, channels] = table.identity;
  for (let view = 0; view < views; view++) {
    const part = mean.slice(view * channels, (view + 1) * channels);
    const norm = Math.hypot(...part) / Math.sqrt(channels);
    part.forEach((x, i) => (mean[view * channels + i] = x / norm));
  }
  return Float32Array.from(mean);
}

// --- the expression -------------------------------------------------------------------------------------------------

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function showWords() {
  const like = $('search').value.trim().toLowerCase(), before = $('word').value;
  const fits = table.words.filter(({ word, family }) => word.includes(like) || family.includes(like));
  const families = [...new Set(fits.map(({ family }) => family))];
  $('word').innerHTML = families.map((family) => `<optgroup label="${capital(family)}">` +
    fits.filter((one) => one.family === family).map(({ word }) => `<option>${word}</option>`).join('') + '</optgroup>').join('') ||
    '<option disabled>no such word</option>';
  $('word').value = before;
}

const named = (word) => table.words.find((one) => one.word === word);

function chooseWord(word) {
  if (!named(word)) return;
  if ($('word').value !== word) {
    $('search').value = '';
    showWords();
    $('word').value = word;
  }
  $('note').textContent = `${capital(word)}: ${named(word).note}`;
  const strength = Number($('strength').value);
  setVector(named(word).vector.map((x, i) => Math.max(table.factors[i].low, Math.min(1, strength * x))));
}

function showSliders() {
  $('sliders').innerHTML = table.factors.map(({ name, about, low }) =>
    `<div class="slider"><label for="${name}">${about}</label>` +
    `<input id="${name}" type="range" min="${low}" max="1" step="0.01" value="0"><output for="${name}">0.00</output></div>`).join('');
}

function setVector(numbers) {
  vector = [...numbers];
  table.factors.forEach(({ name }, i) => {
    $(name).value = vector[i];
    document.querySelector(`output[for=${name}]`).textContent = vector[i].toFixed(2);
  });
  draw();
}

function showReading() {
  const probabilities = posterior(vector, table);
  const names = [...table.words.map(({ word }) => word), 'neutral'];
  const order = [...names.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 3);
  $('nearest').textContent = order.filter((w) => probabilities[w] > 0.01)
    .map((w) => `${names[w]} ${Math.round(100 * probabilities[w])} %`).join(', ');
  $('affect').textContent = affect(probabilities, table).map((x) => x.toFixed(2)).join(', ');
  return names[order[0]];
}

// --- pictures -------------------------------------------------------------------------------------------------------

const settings = () => ({
  identity: identity(),
  identityScale: Number($('identity_scale').value),
  expressionScale: Number($('expression_scale').value),
  steps: Number($('steps').value),
  seed: Math.min(4294967295, Math.max(0, Math.floor(Number($('seed').value)) || 0)),
});

const put = (canvas, rgba) =>
  canvas.getContext('2d').putImageData(new ImageData(rgba, table.image_size, table.image_size), 0, 0);

const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(2)} s`;

function draw() {
  const nearest = showReading(), request = { ...settings(), vectors: [vector], consistent: false };
  $('progress').hidden = false;
  ask('face', request, ({ step, pictures, milliseconds, failed }) => {
    if (failed) return fail(failed);
    if (step) return void ($('progress').value = step / request.steps);
    put($('face'), pictures[0]);
    $('face').setAttribute('aria-label', `Person ${person() + 1}, generated; the expression is nearest to ${nearest}`);
    $('face').dataset.drawn = Number($('face').dataset.drawn ?? 0) + 1;
    $('status').textContent = `${request.steps} step${request.steps > 1 ? 's' : ''} in ${seconds(milliseconds)}`;
    $('progress').hidden = true;
    $('download').disabled = false;
  });
}

function showSet() {
  $('chosen').innerHTML = set.map((word) => `<button type="button" data-word="${word}" aria-label="Remove ${word}">${word} ×</button>`).join('');
  $('add').disabled = set.length >= MOST;
  $('make').disabled = set.length < 2;
}

function makeSet() {
  const words = [...set], vectors = words.map((word) => named(word).vector);
  const request = { ...settings(), vectors, consistent: $('consistent').checked };
  $('set_status').textContent = 'Making the set …';
  ask('set', request, ({ step, pictures, milliseconds, failed }) => {
    if (failed) return fail(failed);
    if (step) return void ($('set_status').textContent = `Step ${step} of ${request.steps} …`);
    $('set').replaceChildren(...pictures.map((rgba, n) => {
      const figure = document.createElement('figure'), canvas = document.createElement('canvas');
      canvas.width = canvas.height = table.image_size;
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `Person ${person() + 1}, generated with ${words[n]}`);
      put(canvas, rgba);
      const caption = document.createElement('figcaption');
      caption.textContent = words[n];
      figure.append(canvas, caption);
      return figure;
    }));
    $('set_status').textContent = `${words.length} pictures, ${request.steps} steps, in ${seconds(milliseconds)}`;
    $('download_set').disabled = false;
  });
}

/** Save a canvas as a PNG. */
function download(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

function sheet() {
  const figures = [...$('set').querySelectorAll('figure')], side = table.image_size, row = side + 24;
  const columns = Math.min(4, figures.length), canvas = document.createElement('canvas');
  canvas.width = columns * side;
  canvas.height = Math.ceil(figures.length / columns) * row;
  const context = canvas.getContext('2d');
  Object.assign(context, { fillStyle: '#ffffff', font: '14px sans-serif', textAlign: 'center' });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = '#222222';
  figures.forEach((figure, n) => {
    const x = (n % columns) * side, y = Math.floor(n / columns) * row;
    context.drawImage(figure.querySelector('canvas'), x, y);
    context.fillText(figure.textContent, x + side / 2, y + side + 17);
  });
  return canvas;
}

// --- what the controls do -------------------------------------------------------------------------------------------

const anyWord = () => table.words[Math.floor(Math.random() * table.words.length)].word;

function listen() {
  $('controls').addEventListener('submit', (event) => event.preventDefault());
  $('controls').addEventListener('input', ({ target }) => {
    const shown = document.querySelector(`output[for="${target.id}"]`);
    if (shown) shown.textContent = Number(target.value).toFixed(2);
    const factor = table.factors.findIndex(({ name }) => name === target.id);
    if (factor >= 0) vector[factor] = Number(target.value);
    if (target.id === 'search') showWords();
    else if (target.id === 'word' || target.id === 'strength') chooseWord($('word').value);
    else draw();
    $('blend').disabled = $('other').value === '';
  });
  $('search').addEventListener('keydown', (event) => {
    const first = $('word').querySelector('option:enabled');
    if (event.key === 'Enter' && first) chooseWord(first.value);
  });
  $('neutral').onclick = () => {
    $('word').value = '';
    $('note').textContent = 'All action units at 0.';
    setVector(new Array(table.factors.length).fill(0));
  };
  $('surprise').onclick = () => chooseWord(anyWord());
  $('again').onclick = () => {
    $('seed').value = Math.floor(Math.random() * 100000);
    draw();
  };
  $('download').onclick = () => download($('face'), `person_${person() + 1}_seed_${settings().seed}.png`);
  $('add').onclick = () => {
    const word = $('word').value || anyWord();
    if (!set.includes(word)) set.push(word);
    showSet();
  };
  $('spread').onclick = () => {
    set = Array.from({ length: MOST }, (_, n) => table.words[Math.floor(((n + Math.random()) * table.words.length) / MOST)].word);
    showSet();
  };
  $('chosen').onclick = ({ target }) => {
    set = set.filter((word) => word !== target.dataset.word);
    showSet();
  };
  $('make').onclick = makeSet;
  $('download_set').onclick = () => download(sheet(), `person_${person() + 1}_set.png`);
}

people = await (await fetch('people/people.json')).json();
showPeople();
ask('load', {}, ({ fraction, table: arrived, failed }) => {
  if (failed) return fail(failed);
  if (fraction !== undefined) {
    $('status').textContent = `Loading the model: ${Math.round(100 * fraction)} %`;
    return void ($('progress').value = fraction);
  }
  table = arrived;
  showWords();
  showSliders();
  listen();
  set = ['joy', 'amusement', 'surprise', 'fear', 'sadness', 'anger'].filter(named);
  showSet();
  $('identity_scale').value = table.identity_scale;
  $('expression_scale').value = table.expression_scale;
  chooseWord('glee');
});
