'use strict';
// Text reaches the page only through text nodes and attributes, never as HTML.
const data = JSON.parse(document.getElementById('data').textContent);
const classes = data.classes;
const byId = (id) => document.getElementById(id);
const color = (label) => `--c: var(--c${label % 5})`;
const plural = (n, word) => `${n} ${word}${n === 1 ? '' : 's'}`;
const show = (value, digits = 3) => value === null ? '–' : value.toFixed(digits);

function make(space, tag, attributes, children) {
  const node = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const el = (tag, attributes, ...children) => make(null, tag, attributes, children);
const svg = (tag, attributes, ...children) =>
  make('http://www.w3.org/2000/svg', tag, attributes, children);

// ---- figures at a threshold --------------------------------------------------------------------
// Scores are descending, so that the detections that a threshold shows are the first ones.
for (const c of classes) {
  c.hits = new Uint32Array(c.scores.length + 1);
  for (let i = 0; i < c.scores.length; i++) c.hits[i + 1] = c.hits[i] + (c.right[i] === '1');
  c.value = c.threshold;
}

function shown(c, threshold) {
  let low = 0, high = c.scores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (c.scores[middle] >= threshold) low = middle + 1; else high = middle;
  }
  return low;
}

const share = (part, whole) => whole ? part / whole : null;

function figures(c, threshold) {
  const count = shown(c, threshold), right = c.hits[count];
  return {
    count, right, precision: share(right, count), recall: share(right, c.objects),
    F1: share(2 * right, count + c.objects), false: (count - right) / data.frames};
}

// Half the width of Wilson's interval (1927), 95 %.
function uncertainty(p, n) {
  if (p === null) return '';
  const z = 1.96, half = z * Math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n);
  return `±${half.toFixed(2)}`;
}

// ---- thresholds --------------------------------------------------------------------------------
const cards = classes.map((c, label) => {
  const set = (value) => { if (Number.isFinite(value)) change(label, value); };
  const name = `Threshold of ${c.name}`;
  const slider = el('input', {
    type: 'range', min: 0, max: 1, step: 'any', 'aria-label': name, id: `slider-${label}`,
    oninput: (event) => set(Math.round(event.target.value * 1000) / 1000),
    onkeydown: (event) => {  // browsers disagree on the step of a continuous slider
      const step = {ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01,
        PageUp: 0.1, PageDown: -0.1}[event.key];
      if (step === undefined) return;
      event.preventDefault();
      set(Math.round((c.value + step) * 1000) / 1000);
    }});
  const number = el('input', {
    type: 'number', min: 0, max: 1, step: 0.01, 'aria-label': `${name}, number`,
    oninput: (event) => { if (event.target.value !== '') set(Number(event.target.value)); },
    onblur: () => update()});
  const cells = {};
  const figure = (key, title) => el('div', {}, el('dt', {}, title),
    cells[key] = el('dd', {'data-class': label, 'data-figure': key}));
  // A row for each mark; its text points to the middle, so that it stays below the slider.
  const mark = (value, text) => el('div', {}, el('span', {
    class: value > 0.5 ? 'left' : '', style: `left: calc(8px + ${value} * (100% - 16px))`}, text));
  const marks = el('div', {class: 'marks', 'aria-hidden': 'true'},
    mark(c.threshold, 'card'), mark(c.best, 'best F1'));
  byId('classes').append(el('div', {
    class: 'card', style: color(label), role: 'group', 'aria-label': c.name,
    onfocusin: () => focus(label), onpointerenter: () => focus(label)},
  el('h3', {}, c.name, el('small', {}, plural(c.objects, 'object'))),
  el('div', {class: 'slide'}, slider, number), marks,
  el('dl', {class: 'figures', role: 'status'}, figure('precision', 'Precision'),
    figure('recall', 'Recall'), figure('F1', 'F1'), figure('false', 'False / frame')),
  el('div', {class: 'bar'},
    el('button', {type: 'button', onclick: () => set(c.threshold)}, `Card ${c.threshold}`),
    el('button', {type: 'button', onclick: () => set(c.best)}, `Best F1 ${c.best}`))));
  return {slider, number, cells};
});

let active = 0;  // the class whose scores are written at the curves
function focus(label) {
  if (active === label) return;
  active = label;
  if (visible.has(label)) drawCharts();
}

function change(label, value) {
  classes[label].value = Math.min(1, Math.max(data.floor, value));
  active = label;
  update();
  remember();
}

function preset(key) {
  for (const c of classes) c.value = c[key];
  update();
  remember();
}
const isPreset = (key) => classes.every((c) => c.value === c[key]);
const presets = [['threshold', 'Thresholds of the card'], ['best', 'Largest F1 of each class']].map(
  ([key, text]) => [key, el('button', {type: 'button', onclick: () => preset(key)}, text)]);
byId('presets').append(...presets.map((p) => p[1]));

// A name that YAML reads as a text; others are quoted as in JSON, which YAML accepts.
const plain = (name) => /^[A-Za-z_][\w-]*$/.test(name)
  && !/^(y|n|yes|no|on|off|true|false|null)$/i.test(name);
function yaml() {
  const decimal = (value) => Number.isInteger(value) ? value.toFixed(1) : String(value);
  const lines = classes.map((c) =>
    `      ${plain(c.name) ? c.name : JSON.stringify(c.name)}: ${decimal(c.value)}`);
  return ['/**:', '  ros__parameters:', '    class_thresholds:', ...lines].join('\n');
}
byId('copy').addEventListener('click', async () => {
  try {
    await navigator.clipboard.writeText(yaml());
  } catch (error) {  // not allowed for this page: select it instead
    getSelection().selectAllChildren(byId('yaml'));
    document.execCommand('copy');
  }
  byId('copy').textContent = 'Copied';
  setTimeout(() => { byId('copy').textContent = 'Copy'; }, 1500);
});

// ---- the address: #person=0.6&car=0.5 ----------------------------------------------------------
function remember() {
  const changed = classes.filter((c) => c.value !== c.threshold);
  const words = changed.map((c) => `${encodeURIComponent(c.name)}=${c.value}`).join('&');
  try {
    history.replaceState(null, '', words ? `#${words}` : location.pathname + location.search);
  } catch (error) { /* an embedded page has no address of its own */ }
}

function recall() {
  if (!location.hash.includes('=')) return;
  for (const word of location.hash.slice(1).split('&')) {
    const [name, value] = word.split('=');
    let wanted;
    try { wanted = decodeURIComponent(name); } catch (error) { continue; }
    const c = classes.find((entry) => entry.name === wanted);
    if (c && value !== '' && Number.isFinite(Number(value))) {
      c.value = Math.min(1, Math.max(data.floor, Number(value)));
    }
  }
  update();
}
addEventListener('hashchange', recall);
for (const link of document.querySelectorAll('nav a')) {
  link.addEventListener('click', (event) => {  // keeps the thresholds in the address
    event.preventDefault();
    byId(link.hash.slice(1)).scrollIntoView();
  });
}

// ---- curves ------------------------------------------------------------------------------------
const visible = new Set(classes.map((_, label) => label).slice(0, 5));
const SIZE = 360, LEFT = 34, BOTTOM = 34, TOP = 10, RIGHT = 10;
const X = (x) => LEFT + x * (SIZE - LEFT - RIGHT);
const Y = (y) => SIZE - BOTTOM - y * (SIZE - BOTTOM - TOP);
const points = classes.map((c) => {
  const found = [];
  for (let i = 0; i < c.scores.length; i++) {
    if (i + 1 < c.scores.length && c.scores[i + 1] === c.scores[i]) continue;  // shown together
    found.push({score: c.scores[i], ...figures(c, c.scores[i])});
  }
  return c.objects ? found : [];
});
const bins = classes.map(({reliability: [score, right, number]}) =>
  score.map((s, i) => ({score: s, right: right[i], number: number[i]})));
const CHARTS = [
  {title: 'Precision over recall', x: 'recall', y: 'precision', points, draw: curve,
    at: (p) => [p.recall, p.precision]},
  {title: 'F1 over score', x: 'score', y: 'F1', points, draw: curve, at: (p) => [p.score, p.F1]},
  {title: 'Calibration: right over score', x: 'score', y: 'share of right detections',
    points: bins, draw: calibration, at: (p) => [p.score, p.right]}];
for (const chart of CHARTS) {
  chart.lines = [];
  chart.picture = svg('svg', {
    viewBox: `0 0 ${SIZE} ${SIZE}`, role: 'img', 'aria-label': chart.title,
    onpointermove: (event) => read(chart, event, false),
    onpointerleave: () => { chart.readout.textContent = ''; },
    onclick: (event) => read(chart, event, true)});
  chart.readout = el('p', {class: 'readout'});
  byId('charts').append(
    el('figure', {}, el('figcaption', {}, chart.title), chart.picture, chart.readout));
}
const legend = classes.map((c, label) => el('button', {
  type: 'button', style: color(label), onclick: () => {
    if (!visible.delete(label)) visible.add(label);
    drawCharts();
  }}, el('span', {class: 'dot'}), `${c.name}${c.ECE === null ? '' : `, ECE ${show(c.ECE)}`}`));
byId('legend').append(...legend);

// steps: a value holds down to the next score.
function path(list, at, steps = false) {
  let text = '', last = [-1, -1];
  for (const p of list) {
    const place = at(p);
    if (Math.hypot(place[0] - last[0], place[1] - last[1]) < 0.002) continue;
    if (steps && text) text += `H${X(place[0]).toFixed(1)}`;
    text += `${text ? 'L' : 'M'}${X(place[0]).toFixed(1)} ${Y(place[1]).toFixed(1)}`;
    last = place;
  }
  return text;
}

function axes(chart) {
  const parts = [];
  for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    parts.push(svg('line', {class: 'grid', x1: X(tick), x2: X(tick), y1: Y(0), y2: Y(1)}),
      svg('line', {class: 'grid', x1: X(0), x2: X(1), y1: Y(tick), y2: Y(tick)}),
      svg('text', {x: X(tick), y: Y(0) + 14, 'text-anchor': 'middle'}, String(tick)),
      svg('text', {x: X(0) - 5, y: Y(tick) + 4, 'text-anchor': 'end'}, String(tick)));
  }
  parts.push(svg('text', {x: X(0.5), y: SIZE - 4, 'text-anchor': 'middle'}, chart.x),
    svg('text', {transform: `translate(9 ${Y(0.5)}) rotate(-90)`, 'text-anchor': 'middle'}, chart.y));
  return parts;
}

function curve(chart, label) {
  const c = classes[label], group = svg('g', {style: color(label)});
  chart.lines[label] ??= path(points[label], chart.at, chart.x === 'score');
  group.append(svg('path', {class: 'curve', d: chart.lines[label]}));
  const dot = (place, radius, kind) => svg('circle', {
    class: kind, cx: X(place[0]), cy: Y(place[1]), r: radius});
  const at = (score) => chart.at({score, ...figures(c, score)});
  const defined = (place) => place[0] !== null && place[1] !== null;
  for (let tenth = 1; tenth < 10; tenth++) {
    const place = at(tenth / 10);
    if (!defined(place) || !shown(c, tenth / 10)) continue;
    group.append(dot(place, 2.4, 'fill'));
    if (label === active && chart.x === 'recall') {
      group.append(svg('text', {class: 'score', x: X(place[0]) + 5, y: Y(place[1]) - 4}, `.${tenth}`));
    }
  }
  if (chart.x === 'score' && defined(at(c.best))) {
    const [x, y] = at(c.best);
    group.append(svg('path', {class: 'fill', d: `M${X(x)} ${Y(y) - 5}l-5 -9h10z`}));
    if (label === active) {
      group.append(svg('text', {class: 'score', x: X(x), y: Math.max(TOP + 2, Y(y) - 17),
        'text-anchor': 'middle'}, `best ${c.best}`));
    }
  }
  if (defined(at(c.value))) group.append(dot(at(c.value), 5, 'ring'));
  return group;
}

function calibration(chart, label) {
  const group = svg('g', {style: color(label)}), mine = bins[label];
  const most = Math.max(1, ...mine.map((bin) => bin.number));
  group.append(svg('line', {class: 'ideal', x1: X(0), x2: X(1), y1: Y(0), y2: Y(1)}),
    svg('path', {class: 'curve', d: path(mine, chart.at)}),
    ...mine.map((bin) => svg('circle', {class: 'fill', cx: X(bin.score), cy: Y(bin.right),
      r: 2 + 6 * Math.sqrt(bin.number / most)})));
  return group;
}

function drawCharts() {
  legend.forEach((button, label) => button.setAttribute('aria-pressed', visible.has(label)));
  const order = [...visible].filter((label) => label !== active).sort((a, b) => a - b);
  if (visible.has(active)) order.push(active);  // on top
  for (const chart of CHARTS) {
    chart.picture.replaceChildren(
      ...axes(chart), ...order.map((label) => chart.draw(chart, label)));
  }
}

function read(chart, event, use) {
  const box = chart.picture.getBoundingClientRect(), scale = SIZE / box.width;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  let best = null;
  for (const label of visible) {
    for (const p of chart.points[label]) {
      const [px, py] = chart.at(p), distance = Math.hypot(X(px) - x, Y(py) - y);
      if (!best || distance < best.distance) best = {distance, label, p};
    }
  }
  if (!best || best.distance > 40) return;
  const {label, p} = best, c = classes[label];
  chart.readout.textContent = `${c.name}, score ${show(p.score)}: ` + (chart.points === bins
    ? `${show(p.right)} of ${plural(p.number, 'detection')} are right`
    : `precision ${show(p.precision)}, recall ${show(p.recall)}, F1 ${show(p.F1)}, ` +
      `${show(p.false, 2)} false per frame`);
  if (use && chart.points === points) change(label, Math.floor(p.score * 1000) / 1000);
}

// ---- tables ------------------------------------------------------------------------------------
function table(title, head, rows, kind = '') {
  return el('table', {class: kind}, el('caption', {}, title),
    el('thead', {}, el('tr', {}, ...head.map((text) => el('th', {scope: 'col'}, text)))),
    el('tbody', {}, ...rows.map(([first, ...rest]) => el('tr', {},
      el('th', {scope: 'row'}, first), ...rest.map((cell) =>
        cell instanceof Node ? cell : el('td', {}, cell))))));
}

let drawn = '';
function drawConfusion() {
  const best = isPreset('best') && !isPreset('threshold');
  const state = `${best} ${isPreset('threshold')}`;
  if (state === drawn) return;
  drawn = state;
  const counts = data.confusion[best ? 'best' : 'threshold'], last = classes.length;
  byId('confusion-words').textContent = `At the thresholds of ${best ? 'the largest F1' : 'the card'}` +
    `${isPreset('best') || isPreset('threshold') ? '' : ', not of the sliders'}. Rows are annotated ` +
    'objects, columns are detections; the share is of the row.';
  const rows = counts.map((row, i) => {
    const total = row.reduce((sum, n) => sum + n, 0);
    return [i === last ? 'no object' : classes[i].name, ...row.map((n, j) => {
      if (i === last && j === last) return el('td', {}, '');
      const part = total ? n / total : 0, strength = i === j ? 0.55 : 0.35;
      return el('td', {style: `background: rgba(var(--heat), ${(part * strength).toFixed(3)})`,
        'data-cell': `${i},${j}`}, String(n), el('small', {}, `${Math.round(100 * part)} %`));
    })];
  });
  byId('confusion-table').replaceChildren(table('', ['', ...classes.map((c) => c.name), 'missed'],
    rows, 'confusion'));
}

const all = {name: 'all', objects: classes.reduce((sum, c) => sum + c.objects, 0), ...data.overall};
const COLUMNS = {frames: (v) => String(v), objects: (v) => String(v), AP: show, AP50: show};
function groupTable(title, rows) {
  const used = Object.keys(COLUMNS).filter((key) => rows.some((row) => key in row));
  return table('', [title, ...used], rows.map((row) => [row.name, ...used.map((key) =>
    row[key] === undefined ? '' : COLUMNS[key](row[key]))]));
}
byId('groups').append(groupTable('class', [...classes.map(({name, objects, AP, AP50}) =>
  ({name, objects, AP, AP50})),
...Object.entries(data.others).map(([name, objects]) =>
  ({name: `${name}, not measured`, objects, AP: null, AP50: null})), all]),
...Object.entries(data.groups).map(([title, rows]) => groupTable(title, rows)));

// ---- pictures ----------------------------------------------------------------------------------
const KINDS = {
  missed: ['Missed', 'Objects without any detection that belongs to them.'],
  false: ['False', 'Detections of nothing, and further boxes of an object.'],
  confused: ['Confused class', 'Objects that were detected as another class.'],
  'bad box': ['Bad box', 'Detections of the right class that overlap the object too little (IoU 0.1 to 0.5).']};

function drawing(picture, kind) {
  const parts = [svg('image', {
    href: `data:image/jpeg;base64,${picture.jpeg}`, width: picture.width, height: picture.height})];
  const rect = (item, names) => svg('rect', {
    class: `${names}${item.kind === kind ? ' wrong' : ''}`, style: color(item.label), x: item.box[0],
    y: item.box[1], width: Math.max(0, item.box[2] - item.box[0]),
    height: Math.max(0, item.box[3] - item.box[1])});
  for (const item of picture.truth) {
    parts.push(rect(item, 'truth'));
    if (item.kind === kind) {
      parts.push(svg('text', {class: 'words', x: item.box[0], y: item.box[3], 'data-below': 1},
        classes[item.label].name));
    }
  }
  for (const item of picture.found) {
    parts.push(rect(item, 'box'), svg('text', {class: 'tag', style: color(item.label),
      x: item.box[0], y: item.box[1], 'data-below': 0},
    `${classes[item.label].name} ${item.score.toFixed(2)}`));
  }
  return svg('svg', {class: 'frame', viewBox: `0 0 ${picture.width} ${picture.height}`, role: 'img',
    'aria-label': `${picture.name} with boxes`}, ...parts);
}

const gallery = [];  // [kind, entry], in the order of the page
for (const [kind, [title, words]] of Object.entries(KINDS)) {
  const entries = data.worst[kind];
  const noun = kind === 'missed' ? 'object' : 'detection';
  byId('kinds').append(el('h3', {}, `${title}: ${plural(data.mistakes[kind], noun)}`),
    el('p', {}, words), el('div', {class: 'frames'}, ...entries.map((entry) => {
      const place = gallery.push([kind, entry]) - 1, picture = data.pictures[entry.picture];
      return el('button', {type: 'button', onclick: () => open(place)}, drawing(picture, kind),
        el('span', {}, el('b', {}, `${entry.count} ${kind}`), ` ${picture.name}`));
    })));
}

const viewer = byId('viewer');
let place = 0;
function open(index) {
  place = (index + gallery.length) % gallery.length;
  const [kind, entry] = gallery[place], picture = data.pictures[entry.picture];
  const large = drawing(picture, kind);
  large.classList.add('large');
  byId('viewer-picture').replaceChildren(large);
  byId('viewer-name').textContent = picture.name;
  byId('viewer-words').textContent = `${KINDS[kind][0]}: ${entry.count}, drawn thick. ${KINDS[kind][1]} ` +
    `Frame ${place + 1} of ${gallery.length}.`;
  if (!viewer.open) viewer.showModal();
  fit();
}

// Text is of the same size on the screen, whatever the frame's.
function fit() {
  const large = viewer.querySelector('svg.frame');
  if (!large) return;
  const frame = large.viewBox.baseVal, box = large.getBoundingClientRect();
  const unit = 1 / Math.min(box.width / frame.width, box.height / frame.height);
  const size = (box.width < 600 ? 11 : 14) * unit;
  for (const text of large.querySelectorAll('text')) {
    text.style.fontSize = `${size}px`;
    text.style.strokeWidth = `${3 * unit}px`;
    text.setAttribute('dy', text.dataset.below === '1' ? size : -4 * unit);
    const y = Number(text.getAttribute('y'));
    if (text.dataset.below === '0' && y < size + 4 * unit) text.setAttribute('dy', size);
    if (text.dataset.below === '1' && y + size > frame.height) text.setAttribute('dy', -4 * unit);
    const over = Number(text.getAttribute('x')) + text.getComputedTextLength() - frame.width;
    if (over > 0) text.setAttribute('dx', -over);
  }
}
addEventListener('resize', fit);
byId('previous').addEventListener('click', () => open(place - 1));
byId('next').addEventListener('click', () => open(place + 1));
byId('close').addEventListener('click', () => viewer.close());
viewer.addEventListener('keydown', (event) => {
  if (event.target.type === 'checkbox') return;
  if (event.key === 'ArrowLeft') open(place - 1);
  if (event.key === 'ArrowRight') open(place + 1);
});
viewer.addEventListener('click', (event) => { if (event.target === viewer) viewer.close(); });
for (const what of ['found', 'truth']) {
  byId(`show-${what}`).addEventListener('change', (event) =>
    viewer.classList.toggle(`no-${what}`, !event.target.checked));
}

// ---- everything that depends on the thresholds -------------------------------------------------
const tiles = {};
for (const [key, title, value] of [['AP', 'AP', show(data.overall.AP)],
  ['AP50', 'AP50', show(data.overall.AP50)], ['precision', 'Precision', ''], ['recall', 'Recall', ''],
  ['false', 'False / frame', ''], ['frames', 'Frames', String(data.frames)]]) {
  tiles[key] = el('dd', {'data-figure': `all-${key}`}, value);
  byId('tiles').append(el('div', {}, el('dt', {}, title), tiles[key]));
}

function update() {
  const sum = {count: 0, right: 0};
  classes.forEach((c, label) => {
    const {slider, number, cells} = cards[label], f = figures(c, c.value);
    slider.value = c.value;
    slider.setAttribute('aria-valuetext', `${c.value}: precision ${show(f.precision)}, recall ` +
      `${show(f.recall)}`);
    if (document.activeElement !== number) number.value = c.value;
    for (const [key, digits] of [['precision', 3], ['recall', 3], ['F1', 3], ['false', 2]]) {
      cells[key].dataset.value = f[key];
      const note = {precision: uncertainty(f.precision, f.count),
        recall: uncertainty(f.recall, c.objects)}[key] || '';
      cells[key].replaceChildren(show(f[key], digits), el('small', {}, note));
    }
    sum.count += f.count;
    sum.right += f.right;
  });
  const total = {precision: share(sum.right, sum.count), recall: share(sum.right, all.objects),
    false: (sum.count - sum.right) / data.frames};
  for (const [key, value] of Object.entries(total)) {
    tiles[key].textContent = show(value, key === 'false' ? 2 : 3);
    tiles[key].dataset.value = value;
  }
  for (const [key, button] of presets) button.setAttribute('aria-pressed', isPreset(key));
  byId('yaml').textContent = yaml();
  drawCharts();
  drawConfusion();
}

byId('title').textContent = `${data.model} on ${data.data.join(', ')}`;
byId('subtitle').textContent = `${plural(data.frames, 'frame')}, ${plural(all.objects, 'object')}, ` +
  data.date;
const unknown = Object.entries(data.others).map(([name, n]) => `${name} (${n})`).join(', ');
byId('others').hidden = !unknown;
byId('others').textContent = `Not measured, as the model does not know these classes: ${unknown}`;
byId('notes').append(...data.notes.map((text) => el('li', {}, text)));
byId('rows').append(el('tbody', {}, ...data.about.map(([title, text]) =>
  el('tr', {}, el('th', {scope: 'row'}, title), el('td', {}, text)))));
byId('card').textContent = JSON.stringify(data.card, null, 2);
update();
recall();
