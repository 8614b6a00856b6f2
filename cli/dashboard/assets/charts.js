// charts.js: the SVG drawings. They know nothing of the API but the shape of samples and segments.
//
//   LineChart   one live curve over the last 5 minutes, with axes, current value and a readout (pointer or arrow keys)
//   Timeline    what the replica holds: snapshots as diamonds, log as bars over time; a click picks a moment
//
// Geometry goes into SVG attributes only: the content security policy forbids style attributes.

const SVG = 'http://www.w3.org/2000/svg';
const WINDOW = 300000;
const GAP = 4000;

const CHART = { height: 150, left: 62, right: 10, top: 8, bottom: 24 };
const LINE = { height: 118, side: 8, marks: 16, top: 32, floor: 92 };
const BIN = 4;
const SNAP = 6;

const SECOND = 1000;
const HOUR = 3600 * SECOND;
const DAY = 24 * HOUR;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200]
  .map((seconds) => seconds * SECOND)
  .concat([1, 2, 7, 14, 28, 91, 182, 364].map((days) => days * DAY));
const DURATIONS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];

const CLOCK = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const TICK_MINUTE = new Intl.DateTimeFormat('en-GB', { timeStyle: 'short' });
const TICK_DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });

function svg(tag, attributes = {}, text = '') {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text) node.textContent = text;
  return node;
}

function line(x1, y1, x2, y2, name) {
  return svg('line', { x1, y1, x2, y2, class: name });
}

/** Steps between the marks of a y axis: the smallest round number not below `raw`. */
export const STEPS = {
  decimal(raw) {
    const power = 10 ** Math.floor(Math.log10(raw));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  },
  binary: (raw) => Math.max(1, 2 ** Math.ceil(Math.log2(raw))),
  seconds: (raw) => (raw <= 1 ? STEPS.decimal(raw) : DURATIONS.find((step) => step >= raw) ?? STEPS.decimal(raw)),
};

function onResize(node, change) {
  new ResizeObserver(([entry]) => change(Math.max(220, Math.floor(entry.contentRect.width)))).observe(node);
}

export class LineChart {
  /** column: which number of a sample; format(value), tick(value): texts; least: smallest top of the y axis. */
  constructor(figure, { column, label, format, tick, steps, least }) {
    Object.assign(this, { column, label, format, tick, steps, least });
    this.value = figure.querySelector('.chart-value');
    this.readout = figure.querySelector('.readout');
    this.samples = [];
    this.now = Date.now();
    this.limit = null;
    this.chosen = null;
    this.width = 320;
    this.root = svg('svg', {
      class: 'plot', height: CHART.height, tabindex: 0, role: 'slider',
      'aria-label': `${label}, last 5 minutes. Arrow keys read single values.`,
      'aria-valuemin': -WINDOW / SECOND, 'aria-valuemax': 0,
    });
    figure.append(this.root);
    this.listen();
    onResize(figure, (width) => {
      this.width = width;
      this.draw();
    });
  }

  listen() {
    this.root.addEventListener('pointermove', (event) => this.choose(this.nearest(event)));
    this.root.addEventListener('pointerleave', () => this.choose(null));
    this.root.addEventListener('focus', () => {
      if (this.chosen === null) this.choose(this.samples.length - 1);
    });
    this.root.addEventListener('blur', () => this.choose(null));
    this.root.addEventListener('keydown', (event) => this.key(event));
  }

  update(samples, now, limit = null) {
    this.samples = samples.filter((sample) => sample[0] >= now - WINDOW && sample[0] <= now + GAP);
    this.now = now;
    this.limit = limit;
    const last = this.samples[this.samples.length - 1];
    this.value.textContent = last ? this.format(last[this.column]) : '–';
    this.draw();
  }

  /** Chooses a sample by index; remembers its time, since the samples move on. */
  choose(index) {
    this.chosen = this.samples[index]?.[0] ?? null;
    this.draw();
  }

  nearest(event) {
    const box = this.root.getBoundingClientRect();
    const share = (event.clientX - box.left - CHART.left) / (this.width - CHART.left - CHART.right);
    const time = this.now - WINDOW + share * WINDOW;
    let best = 0;
    this.samples.forEach((sample, index) => {
      if (Math.abs(sample[0] - time) < Math.abs(this.samples[best][0] - time)) best = index;
    });
    return best;
  }

  key(event) {
    const moves = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10,
      Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const last = this.samples.length - 1;
    const at = this.samples.findIndex((sample) => sample[0] === this.chosen);
    this.choose(Math.min(Math.max((at < 0 ? last : at) + moves[event.key], 0), last));
  }

  draw() {
    const { width, column } = this;
    const floor = CHART.height - CHART.bottom;
    const highest = Math.max(this.least, ...this.samples.map((sample) => sample[column] || 0));
    const step = this.steps(highest / 4);
    const top = Math.ceil(highest / step - 0.001) * step;
    const x = (time) => CHART.left + ((time - this.now + WINDOW) / WINDOW) * (width - CHART.left - CHART.right);
    const y = (value) => floor - (value / top) * (floor - CHART.top);
    const sample = this.samples.find((each) => each[0] === this.chosen);
    this.root.setAttribute('viewBox', `0 0 ${width} ${CHART.height}`);
    this.root.replaceChildren(
      ...this.valueAxis(step, top, y),
      ...this.timeAxis(x, floor),
      ...this.curve(x, y, floor),
      ...this.limitLine(top, y),
      ...this.crosshair(sample, x, y, floor),
    );
    this.tell(sample, this.limit && this.limit <= top);
  }

  valueAxis(step, top, y) {
    const nodes = [];
    for (let value = 0; value <= top * 1.001; value += step) {
      nodes.push(line(CHART.left, y(value), this.width - CHART.right, y(value), 'grid'));
      nodes.push(svg('text', { x: CHART.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, this.tick(value)));
    }
    return nodes;
  }

  timeAxis(x, floor) {
    const nodes = [];
    for (let minutes = 5; minutes >= 0; minutes -= 1) {
      const at = x(this.now - minutes * 60 * SECOND);
      nodes.push(line(at, floor, at, floor + 4, 'axis'));
      const anchor = minutes === 0 ? 'end' : 'middle';
      const shift = minutes === 0 ? 6 : 0;
      const text = minutes === 0 ? 'now' : `−${minutes} min`;
      if (minutes % 2 === 0 || this.width > 420) {
        nodes.push(svg('text', { x: at + shift, y: floor + 18, 'text-anchor': anchor }, text));
      }
    }
    return nodes;
  }

  limitLine(top, y) {
    if (!this.limit || this.limit > top) return [];
    return [line(CHART.left, y(this.limit), this.width - CHART.right, y(this.limit), 'limit')];
  }

  /** Line and area; a missing value or a pause in the samples breaks both. */
  curve(x, y, floor) {
    const runs = [];
    let before = -Infinity;
    for (const sample of this.samples) {
      const known = Number.isFinite(sample[this.column]);
      if (known && sample[0] - before > GAP) runs.push([]);
      if (known) runs[runs.length - 1].push(`${x(sample[0]).toFixed(1)} ${y(sample[this.column]).toFixed(1)}`);
      before = known ? sample[0] : -Infinity;
    }
    const ends = (run) => [run[0].split(' ')[0], run[run.length - 1].split(' ')[0]];
    const area = runs.map((run) => `M${ends(run)[0]} ${floor}L${run.join('L')}L${ends(run)[1]} ${floor}Z`).join('');
    const path = runs.map((run) => `M${run.join('L')}`).join('');
    return [svg('path', { d: area, class: 'area' }), svg('path', { d: path, class: 'curve' })];
  }

  crosshair(sample, x, y, floor) {
    if (!sample) return [];
    const at = x(sample[0]);
    const dot = svg('circle', { cx: at, cy: y(sample[this.column] || 0), r: 4, class: 'dot' });
    return [line(at, CHART.top, at, floor, 'cross'), dot];
  }

  tell(sample, limited) {
    const shown = sample ?? this.samples[this.samples.length - 1];
    const text = shown ? `${this.format(shown[this.column])} at ${CLOCK.format(shown[0])}` : 'no samples yet';
    const rest = limited ? `dashed: limit ${this.format(this.limit)}` : '';
    this.readout.textContent = sample || !shown ? text : rest;
    this.root.setAttribute('aria-valuetext', text);
    this.root.setAttribute('aria-valuenow', shown ? Math.round((shown[0] - this.now) / SECOND) : 0);
  }
}

export class Timeline {
  /** pick(text): a moment was clicked. describe(ms): what is restored there. */
  constructor(host, { pick, describe }) {
    this.pick = pick;
    this.describe = describe;
    this.history = null;
    this.selected = null;
    this.pointed = null;
    this.width = 320;
    this.readout = document.createElement('p');
    this.readout.className = 'readout';
    this.root = svg('svg', { class: 'plot', height: LINE.height, role: 'img' });
    this.still = svg('g');
    this.moving = svg('g');
    this.root.append(this.still, this.moving);
    host.append(this.readout, this.root);
    this.root.addEventListener('pointermove', (event) => this.point(event));
    this.root.addEventListener('pointerleave', () => this.point(null));
    this.root.addEventListener('click', (event) => this.history && this.pick(this.momentAt(event)));
    onResize(host, (width) => {
      this.width = width;
      this.draw();
    });
  }

  update(history) {
    this.history = history;
    this.first = Date.parse(history.first_time);
    this.last = Math.max(Date.parse(history.last_time), this.first + SECOND);
    const snapshots = history.segments.filter((segment) => segment.kind === 'snapshot').length;
    this.root.setAttribute('aria-label', `Timeline of the replica: ${snapshots} snapshots and `
      + `${history.segments.length - snapshots} pieces of log. Use the slider below to pick a moment.`);
    this.draw();
  }

  /** Marks the chosen moment, in milliseconds; null for none. */
  select(time) {
    this.selected = time;
    this.drawMoving();
  }

  x(time) {
    return LINE.side + ((time - this.first) / (this.last - this.first)) * (this.width - 2 * LINE.side);
  }

  /** The moment under the pointer as text: a snapshot's own time when one is near. */
  momentAt(event) {
    const at = event.clientX - this.root.getBoundingClientRect().left;
    const near = this.history.segments
      .filter((segment) => segment.kind === 'snapshot')
      .find((segment) => Math.abs(this.x(Date.parse(segment.last_time)) - at) < SNAP);
    if (near) return near.last_time;
    const time = this.first + ((at - LINE.side) / (this.width - 2 * LINE.side)) * (this.last - this.first);
    return this.textOf(Math.round(time / SECOND) * SECOND);
  }

  /** Never before the first moment, whose text keeps its microseconds; "latest" from the last one on. */
  textOf(time) {
    if (time >= Date.parse(this.history.last_time)) return 'latest';
    return time <= this.first ? this.history.first_time : new Date(time).toISOString().replace('.000Z', 'Z');
  }

  point(event) {
    const text = event && this.history ? this.momentAt(event) : null;
    this.pointed = text === 'latest' ? this.last : text && Date.parse(text);
    this.readout.textContent = text ? this.describe(text) : '';
    this.drawMoving();
  }

  draw() {
    if (!this.history) return;
    this.root.setAttribute('viewBox', `0 0 ${this.width} ${LINE.height}`);
    const base = line(LINE.side, LINE.floor, this.width - LINE.side, LINE.floor, 'axis');
    this.still.replaceChildren(...this.generations(), ...this.bars(), base, ...this.timeAxis(), ...this.marks());
    this.drawMoving();
  }

  drawMoving() {
    if (!this.history) return;
    const nodes = [];
    if (this.pointed !== null) nodes.push(line(this.x(this.pointed), 4, this.x(this.pointed), LINE.floor, 'cross'));
    if (this.selected !== null) {
      const at = this.x(Math.min(Math.max(this.selected, this.first), this.last));
      nodes.push(line(at, 2, at, LINE.floor + 4, 'chosen'));
    }
    this.moving.replaceChildren(...nodes);
  }

  /** Log in columns of a few pixels, so that ten thousand segments draw as fast as ten. */
  bars() {
    const bins = new Map();
    for (const segment of this.history.segments) {
      if (segment.kind === 'log') this.spread(segment, bins);
    }
    const most = Math.max(1, ...[...bins.values()].map((bin) => bin.bytes));
    return [...bins].map(([index, bin]) => {
      const height = 4 + Math.sqrt(bin.bytes / most) * (LINE.floor - LINE.top - 4);
      const place = { x: LINE.side + index * BIN, y: LINE.floor - height, width: BIN - 1, height };
      return svg('rect', { ...place, class: bin.all ? 'log' : 'log merged' });
    });
  }

  spread(segment, bins) {
    const index = (time) => Math.floor((this.x(Date.parse(time)) - LINE.side) / BIN);
    const from = index(segment.first_time);
    const to = Math.max(index(segment.last_time), from);
    for (let at = from; at <= to; at += 1) {
      const bin = bins.get(at) ?? { bytes: 0, all: false };
      bin.bytes += segment.bytes / (to - from + 1);
      bin.all = bin.all || segment.restorable === 'all';
      bins.set(at, bin);
    }
  }

  marks() {
    return this.history.segments.filter((segment) => segment.kind === 'snapshot').map((segment) => {
      const at = this.x(Date.parse(segment.last_time));
      const y = LINE.marks;
      return svg('path', { d: `M${at} ${y - 7}l6 7l-6 7l-6 -7Z`, class: 'snapshot' });
    });
  }

  /** A dashed line where a generation after the first begins. */
  generations() {
    const starts = new Map();
    for (const segment of this.history.segments) {
      const time = Date.parse(segment.first_time);
      starts.set(segment.generation, Math.min(time, starts.get(segment.generation) ?? time));
    }
    const later = [...starts.values()].sort((a, b) => a - b).slice(1);
    return later.map((time) => line(this.x(time), 4, this.x(time), LINE.floor, 'generation'));
  }

  timeAxis() {
    const span = this.last - this.first;
    const room = Math.max(2, Math.floor(this.width / 90));
    const step = TIME_STEPS.find((each) => span / each <= room) ?? span;
    const zone = new Date(this.first).getTimezoneOffset() * 60 * SECOND;
    const format = step >= DAY ? TICK_DAY : step >= 60 * SECOND ? TICK_MINUTE : CLOCK;
    const nodes = [];
    for (let time = Math.ceil((this.first - zone) / step) * step + zone; time <= this.last; time += step) {
      const at = this.x(time);
      const midnight = new Date(time).getHours() === 0 && new Date(time).getMinutes() === 0 && step >= HOUR;
      nodes.push(line(at, LINE.floor, at, LINE.floor + 4, 'axis'));
      if (at > 26 && at < this.width - 26) {
        const text = (midnight ? TICK_DAY : format).format(time);
        nodes.push(svg('text', { x: at, y: LINE.floor + 18, 'text-anchor': 'middle' }, text));
      }
    }
    return nodes;
  }
}
