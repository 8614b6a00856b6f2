// app.js: the pages of the libreplica dashboard.
//
// The markup lives in the <template> elements of index.html; this file clones and fills them. Everything from the API
// is untrusted text: it is set with textContent, never as HTML, and no style attribute is written (strict CSP).
//
//   helpers      find and fill nodes
//   session      login, logout, end of session
//   poll         once a second: the databases, then whatever the page in view asks for
//   overview     #/         one row per database, unhealthy first
//   detail       #/db/ID    figures, charts, history with restore, verify, snapshot, events
//   config       #/config   settings in force
//
// A page is { name, title(), root, update() }. update() is called after each poll; it draws, and runs the page's lanes.

import {
  ApiError, Poller, ago, bytes, count, duration, fileError, isReplicated, jobFacts, lagText, lane, leaderText, local,
  matches, money, outcome, plural, problemText, rate, readTarget, request, restoredName, succeeded, summary, utc,
  worstFirst,
} from './api.js';
import { LineChart, STEPS, Timeline } from './charts.js';

const STATES = {
  off: ['muted', 'ring'],
  snapshot: ['info', 'square'],
  streaming: ['ok', 'circle'],
  behind: ['warn', 'triangle'],
  resync: ['warn', 'diamond'],
  fenced: ['bad', 'bar'],
  error: ['bad', 'cross'],
};
const KEPT_SAMPLES = 600;
const SHOWN_EVENTS = 100;
const SLIDER_STEPS = 600;

const CHARTS = {
  'chart-lag': {
    column: 1, label: 'Lag', least: 1, steps: STEPS.seconds, format: duration,
    tick: (value) => (value < 10 ? `${Number(value.toFixed(2))} s` : duration(value)),
  },
  'chart-commits': {
    column: 2, label: 'Commits per second', least: 1, steps: STEPS.decimal, format: rate, tick: count,
  },
  'chart-bytes': {
    column: 3, label: 'Stored bytes per second', least: 1024, steps: STEPS.binary, tick: bytes,
    format: (value) => `${bytes(value)}/s`,
  },
};

const store = { user: null, databases: null, offset: 0, maxLag: null, filter: '', scroll: 0 };
const main = document.getElementById('main');
const banner = byTest(document, 'connection-lost');
const poller = new Poller(poll);
let page = null;

// ---- helpers ----

function field(root, name) {
  return root.querySelector(`[data-f="${name}"]`);
}

function byTest(root, id) {
  return root.querySelector(`[data-testid="${id}"]`);
}

function template(name) {
  return document.getElementById(`t-${name}`).content.firstElementChild.cloneNode(true);
}

/** Sets the text only when it changes, so that selections and live regions stay quiet. */
function setText(node, value) {
  const text = String(value);
  if (node.textContent !== text) node.textContent = text;
}

function fill(root, values) {
  for (const [name, value] of Object.entries(values)) setText(field(root, name), value);
}

/** Shows the text, or hides the node when there is none. */
function setNotice(node, value) {
  node.hidden = !value;
  setText(node, value || '');
}

function setTime(node, time, text) {
  setText(node, text);
  if (!time) {
    node.removeAttribute('datetime');
    node.title = '';
  } else if (node.dateTime !== time) {
    node.dateTime = time;
    node.title = `${local(time)} (${utc(time)})`;
  }
}

function setState(root, db) {
  const [tone, shape] = STATES[db.state] ?? ['muted', 'ring'];
  const node = byTest(root, 'state');
  node.dataset.tone = tone;
  node.querySelector('use').setAttribute('href', `#shape-${shape}`);
  fill(node, { word: db.state });
  field(root, 'unhealthy').hidden = db.healthy;
}

function make(tag, text = '', name = '') {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = name;
  return node;
}

function factRow([term, value]) {
  const row = make('div');
  row.append(make('dt', term), make('dd', value, 'code'));
  return row;
}

function fillList(list, texts) {
  list.replaceChildren(...texts.map((text) => make('li', text)));
}

function serverNow() {
  return Date.now() + store.offset;
}

// ---- session ----

async function boot() {
  try {
    enter(await request('session'));
    setNotice(banner, '');
  } catch (error) {
    if (error.status === 401) return showLogin();
    lost(error);
    setTimeout(boot, 2000);
  }
}

function enter(session) {
  store.user = session.user;
  fill(document.getElementById('top'), { user: session.user });
  fill(document.getElementById('foot'), {
    version: `libreplica ${session.version}`,
    zone: `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone}; UTC on hover`,
  });
  setChrome(true);
  route();
  poller.start();
}

function leave(reason = '') {
  if (!store.user) return;
  Object.assign(store, { user: null, databases: null, filter: '', scroll: 0 });
  poller.stop();
  setNotice(banner, '');
  showLogin(reason);
}

function setChrome(shown) {
  for (const id of ['top', 'foot', 'skip']) document.getElementById(id).hidden = !shown;
}

function showLogin(reason = '') {
  const root = template('login');
  const form = byTest(root, 'login-form');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    login(form);
  });
  page = null;
  setChrome(false);
  document.title = 'Log in · libreplica';
  main.replaceChildren(root);
  byTest(root, 'login-error').textContent = reason;
  form.elements.user.focus();
}

async function login(form) {
  const error = byTest(form, 'login-error');
  const button = byTest(form, 'login-submit');
  const { user, password } = form.elements;
  if (button.disabled) return;
  button.disabled = true;
  error.textContent = '';
  try {
    const session = await request('login', { user: user.value, password: password.value });
    enter(session);
    focusHeading();
  } catch (problem) {
    const wait = problem.status === 429 ? Math.ceil(problem.retryAfter ?? 30) : 0;
    error.textContent = wait ? `${problem.message} Wait ${plural(wait, 'second')}.` : problem.message;
    password.focus();
    password.select();
    holdButton(button, Date.now() + wait * 1000);
  }
}

/** Counts down on the button; the alert is read out once only. */
function holdButton(button, until) {
  const seconds = Math.ceil((until - Date.now()) / 1000);
  button.disabled = seconds > 0;
  button.textContent = seconds > 0 ? `Wait ${seconds} s` : 'Log in';
  if (seconds > 0 && button.isConnected) setTimeout(() => holdButton(button, until), 250);
}

async function logout() {
  try {
    await request('logout', {});
    leave();
  } catch (error) {
    if (error.status === 401) leave();
    else lost(error);
  }
}

// ---- poll ----

async function poll() {
  try {
    const answer = await request('databases');
    if (!store.user) return false;
    store.databases = answer.databases;
    store.offset = Date.parse(answer.now) - Date.now();
    store.maxLag = answer.max_lag;
    setNotice(banner, '');
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) ended();
    else if (store.user) lost(error);
    return false;
  }
  page.update();
  setTitle();
  return true;
}

function lost(error) {
  setNotice(banner, `Connection lost, retrying. ${error.message}`);
}

function ended() {
  leave('Your session has ended. Log in again.');
}

/** Runs one request of a page; its error goes to `note`, beside what it concerns. */
async function attempt(work, note) {
  try {
    await work();
    setText(note, '');
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) ended();
    else setText(note, error.message);
  }
}

function setTitle() {
  const unhealthy = (store.databases ?? []).filter((db) => !db.healthy).length;
  document.title = `${unhealthy ? `(${unhealthy} unhealthy) ` : ''}${page.title()} · libreplica`;
}

// ---- pages ----

function route() {
  if (!store.user) return;
  const hash = window.location.hash;
  const id = /^#\/db\/(.+)$/.exec(hash)?.[1];
  if (page?.name === 'overview') store.scroll = window.scrollY;
  if (id !== undefined) page = detailPage(id);
  else page = hash === '#/config' ? configPage() : overviewPage();
  main.replaceChildren(page.root);
  for (const link of document.querySelectorAll('[data-page]')) {
    if (link.dataset.page === page.name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (store.databases) page.update();
  setTitle();
  window.scrollTo(0, page.name === 'overview' ? store.scroll : 0);
  poller.run();
}

function focusHeading() {
  main.querySelector('h1')?.focus({ preventScroll: true });
}

// ---- overview ----

function overviewPage() {
  const root = template('overview');
  const filter = field(root, 'filter');
  const list = field(root, 'list');
  const rows = new Map();

  function update() {
    const all = store.databases;
    const shown = all.filter((db) => matches(db, store.filter)).sort(worstFirst);
    field(root, 'filter-field').hidden = all.length < 2;
    fill(root, { summary: summary(all, shown.length) });
    arrange(list, shown.map(rowOf));
  }

  function rowOf(db) {
    const row = rows.get(db.id) ?? template('row');
    rows.set(db.id, row);
    fillRow(row, db);
    return row;
  }

  filter.value = store.filter;
  filter.addEventListener('input', () => {
    store.filter = filter.value;
    if (store.databases) update();
  });
  list.addEventListener('click', openRow);
  return { name: 'overview', title: () => 'Databases', root, update };
}

/** Puts the rows in order, moving only those out of place; the focus survives a move. */
function arrange(list, rows) {
  const focused = document.activeElement;
  for (const row of [...list.children]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
}

function fillRow(row, db) {
  const replicated = isReplicated(db);
  row.dataset.id = db.id;
  row.classList.toggle('bad', !db.healthy);
  setState(row, db);
  field(row, 'name').href = `#/db/${db.id}`;
  fill(row, { name: db.name, database: db.database, replica: db.replica ?? '' });
  field(row, 'figures').hidden = !replicated;
  setText(byTest(row, 'lag'), lagText(db));
  setTime(field(row, 'acknowledged'), db.last_acknowledged, ago(db.last_acknowledged, serverNow()));
  setNotice(field(row, 'problem'), problemText(db) || db.message);
}

/** The whole row opens the database, but text in it can still be selected. */
function openRow(event) {
  const row = event.target.closest('.row');
  const selecting = window.getSelection().toString() !== '';
  if (row && !selecting && !event.target.closest('a')) window.location.hash = `#/db/${row.dataset.id}`;
}

// ---- detail ----

function detailPage(id) {
  const root = template('detail');
  const find = () => (store.databases ?? []).find((db) => String(db.id) === id);
  const parts = [samplesPart, historyPart, jobsPart, eventsPart].map((part) => part(root, id, find));

  function update() {
    const db = find();
    if (!db) return showNoDatabase(root, id);
    fillHead(root, db);
    if (!isReplicated(db)) return undefined;
    fillFigures(root, db);
    return parts.forEach((part) => part.run());
  }

  fill(root, { name: 'Loading…' });
  field(root, 'head-state').hidden = true;
  return { name: 'detail', title: () => find()?.name ?? 'Database', root, update };
}

function showNoDatabase(root, id) {
  fill(root, { name: 'No such database' });
  setNotice(field(root, 'message'), `There is no database with the id ${id}.`);
  for (const name of ['head-state', 'problem', 'replicated']) field(root, name).hidden = true;
}

function fillHead(root, db) {
  fill(root, { name: db.name, database: db.database, replica: db.replica ?? '' });
  field(root, 'head-state').hidden = false;
  field(root, 'replicated').hidden = !isReplicated(db);
  setState(root, db);
  const since = db.last_error && db.error_since ? `\nErrors since ${local(db.error_since)}` : '';
  const problem = problemText(db);
  setNotice(field(root, 'problem'), problem && problem + since);
  setNotice(field(root, 'message'), db.message);
}

function fillFigures(root, db) {
  const seen = db.last_acknowledged ? ` · ${local(db.last_acknowledged)}` : '';
  setText(byTest(root, 'lag'), `${lagText(db)} · ${bytes(db.lag.bytes)}`);
  setTime(field(root, 'acknowledged'), db.last_acknowledged, ago(db.last_acknowledged, serverNow()) + seen);
  fill(root, {
    committed: db.txid.committed ?? '?',
    captured: db.txid.captured,
    txid: db.txid.acknowledged,
    leader: leaderText(db.leader),
    size: bytes(db.database_bytes),
    spool: bytes(db.spool_bytes),
    sent: `${bytes(db.bytes_stored)} stored, from ${bytes(db.bytes_raw)}`,
    puts: `${count(db.puts)}, ${count(db.put_errors)} failed`,
    generation: db.generation ?? '–',
  });
}

function samplesPart(root, id) {
  const charts = Object.entries(CHARTS).map(([name, options]) => new LineChart(byTest(root, name), options));
  let samples = [];

  async function load() {
    const after = samples.length ? `&after=${samples[samples.length - 1][0]}` : '';
    const answer = await request(`samples?database=${encodeURIComponent(id)}${after}`);
    samples = samples.concat(answer.samples).slice(-KEPT_SAMPLES);
    charts.forEach((chart, index) => chart.update(samples, serverNow(), index === 0 ? store.maxLag : null));
  }

  return lane(() => attempt(load, field(root, 'samples-error')));
}

function eventsPart(root, id) {
  let key = '';

  async function load() {
    const { events } = await request(`events?database=${encodeURIComponent(id)}`);
    const newKey = JSON.stringify([events.length, events[events.length - 1]]);
    if (newKey === key) return;
    key = newKey;
    field(root, 'events').replaceChildren(...events.slice(-SHOWN_EVENTS).reverse().map(eventRow));
    const cut = events.length > SHOWN_EVENTS ? `The newest ${SHOWN_EVENTS} of ${count(events.length)}.` : '';
    fill(root, { 'events-note': events.length ? cut : 'No events yet.' });
  }

  return lane(() => attempt(load, field(root, 'events-error')), 5);
}

function eventRow(event) {
  const row = make('tr');
  const time = make('time');
  const when = make('td', '', 'nowrap');
  setTime(time, event.time, local(event.time));
  when.append(time);
  row.append(when, make('td', event.kind, 'nowrap'), make('td', event.message, 'wrap'));
  return row;
}

// ---- detail: history and restore ----

function historyPart(root, id, find) {
  const range = field(root, 'range');
  const target = byTest(root, 'restore-target');
  const note = field(root, 'history-error');
  let history = null;
  let stride = 1000;

  const timeline = new Timeline(field(root, 'timeline'), {
    pick: (text) => setTarget(text),
    describe: (text) => readTarget(text, history).words,
  });

  function setTarget(text) {
    target.value = text;
    changed();
  }

  /** The text field is the truth; slider and timeline follow it. */
  function changed() {
    const wanted = readTarget(target.value, history);
    const marked = history && Number.isFinite(wanted.marker);
    range.value = marked ? Math.round((wanted.marker - timeline.first) / stride) : range.max;
    range.setAttribute('aria-valuetext', wanted.error ?? wanted.words);
    timeline.select(wanted.marker ?? null);
    setText(field(root, 'meaning'), wanted.error ?? `Restores ${wanted.words}.`);
    target.setAttribute('aria-invalid', String(Boolean(wanted.error)));
    root.dispatchEvent(new CustomEvent('target', { detail: wanted }));
  }

  /** The slider counts strides of whole seconds from the first moment; its end means "latest". */
  function scaleSlider() {
    const span = timeline.last - timeline.first;
    stride = Math.ceil(span / SLIDER_STEPS / 1000) * 1000;
    range.max = Math.ceil(span / stride);
  }

  async function load() {
    changed();
    const answer = await request(`history?database=${encodeURIComponent(id)}`);
    if (!answer.first_time) {
      fill(root, { 'cost-note': 'The replica holds nothing yet.' });
      return;
    }
    history = answer;
    fillHistory(root, history);
    timeline.update(history);
    scaleSlider();
    changed();
  }

  range.addEventListener('input', () => {
    if (history) setTarget(timeline.textOf(timeline.first + Number(range.value) * stride));
  });
  target.addEventListener('input', changed);
  restoreForm(root, find);
  const slot = lane(() => attempt(load, note), 15);
  root.addEventListener('stored', slot.soon);
  return slot;
}

function fillHistory(root, history) {
  const { cost } = history;
  const total = money(cost.storage_month + cost.requests_month, cost.currency);
  const parts = `storage ${money(cost.storage_month, cost.currency)}, requests `
    + money(cost.requests_month, cost.currency);
  field(root, 'history').classList.add('drawn');
  setTime(field(root, 'first'), history.first_time, local(history.first_time));
  setTime(field(root, 'last'), history.last_time, local(history.last_time));
  fill(root, {
    stored: `${bytes(history.bytes)} in ${plural(history.objects, 'object')}, `
      + plural(history.generations, 'generation'),
    cost: `about ${total} (${parts})`,
    'cost-note': `${cost.note} ${history.sampled ? 'The timeline shows a sample of the segments.' : ''}`.trim(),
    holes: history.holes.length === 0 ? '' : `${plural(history.holes.length, 'piece')} of the log ${
      history.holes.length === 1 ? 'is' : 'are'} missing: no state there or behind it can be restored, as far as the next `
      + 'snapshot. Take a snapshot to make the present one restorable again.',
  });
}

function restoreForm(root, find) {
  const file = byTest(root, 'restore-file');
  const dialog = field(root, 'confirm');
  let wanted = null;
  let typed = false;
  let named = '';
  let order = null;

  root.addEventListener('target', (event) => {
    wanted = event.detail;
    if (!typed && wanted.target && wanted.target !== named) {
      named = wanted.target;
      file.value = restoredName(find(), wanted.time ?? serverNow());
    }
  });
  file.addEventListener('input', () => {
    typed = file.value !== '';
    fill(root, { 'file-error': '' });
  });
  field(root, 'restore').addEventListener('submit', (event) => {
    event.preventDefault();
    if (byTest(root, 'restore-start').getAttribute('aria-disabled') === 'true') return;
    const db = find();
    const error = wanted.error ?? fileError(file.value.trim(), db);
    fill(root, { 'file-error': error });
    if (error) return;
    order = { target: wanted.target, file: file.value.trim() };
    fillConfirm(root, db, order.file, wanted);
    dialog.returnValue = '';
    dialog.showModal();
  });
  dialog.addEventListener('close', () => {
    if (dialog.returnValue === 'restore') root.dispatchEvent(new CustomEvent('order', { detail: order }));
  });
}

function fillConfirm(root, db, file, wanted) {
  fill(root, {
    'confirm-file': `${db.restore_directory}/${file}`,
    'confirm-state': wanted.words,
    'confirm-replica': db.replica,
    'confirm-size': `about ${bytes(db.database_bytes)}, the size of the database now`,
    'confirm-database': db.database,
  });
}

// ---- detail: jobs ----

function jobsPart(root, id, find) {
  const panels = ['verify', 'snapshot', 'restore'].map((kind) => jobPanel(root, kind));
  const [verify, snapshot, restore] = panels;

  async function load() {
    const asked = panels.map((panel) => panel.pending);
    const { jobs } = await request('jobs');
    const mine = jobs.filter((job) => String(job.database) === id);
    panels.forEach((panel, index) => panel.take(mine, asked[index]));
    if (panels.some((panel) => panel.busy())) slot.soon();
  }

  async function start(panel, body) {
    if (panel.busy()) return;
    panel.begin();
    try {
      panel.accepted((await request(panel.kind, { database: find().id, ...body })).job);
    } catch (error) {
      if (error.status === 401) ended();
      panel.refused(error.message);
    }
    slot.soon();
  }

  function onSubmit(name, panel, body) {
    field(root, name).addEventListener('submit', (event) => {
      event.preventDefault();
      start(panel, body());
    });
  }

  onSubmit('verify', verify, () => ({ depth: byTest(root, 'verify-depth').value }));
  onSubmit('snapshot', snapshot, () => ({}));
  root.addEventListener('order', (event) => start(restore, event.detail));
  const slot = lane(() => attempt(load, make('p')), 5);
  return slot;
}

/** The newest job of one kind: what was just asked of the server (`pending`), else what it lists. */
function jobPanel(root, kind) {
  const box = template('job');
  const button = byTest(root, `${kind}-start`);
  byTest(root, `${kind}-result`).append(box);

  const panel = {
    kind,
    pending: null,
    listed: undefined,
    shown: null,
    busy: () => panel.shown?.state === 'running',
    begin: () => panel.hold({ kind, state: 'running', progress: null, message: 'Waiting for the server' }),
    accepted: (job) => panel.hold({ ...panel.pending, id: job }),
    refused: (message) => panel.hold({ kind, state: 'failed', message }),
    hold(job) {
      panel.pending = job;
      panel.show(job);
    },
    /** A list asked for after the server took the job is the truth; a refusal yields to a newer job. */
    take(jobs, asked) {
      const newest = jobs.find((each) => each.kind === kind);
      const taken = panel.pending?.id !== undefined && panel.pending === asked;
      const outdated = panel.pending?.state === 'failed' && newest?.id !== panel.listed;
      if (taken || outdated) panel.pending = null;
      panel.listed = newest?.id;
      const job = panel.pending ?? newest;
      if (job) panel.show(job);
      else if (panel.busy()) panel.refused('the server no longer knows this job');
    },
    show(job) {
      const grown = kind === 'snapshot' && panel.busy() && job.state === 'done';
      panel.shown = job;
      button.setAttribute('aria-disabled', String(panel.busy()));
      fillJob(box, job);
      if (grown) root.dispatchEvent(new CustomEvent('stored'));
    },
  };
  return panel;
}

function fillJob(box, job) {
  const running = job.state === 'running';
  const known = running && Number.isFinite(job.progress);
  const progress = field(box, 'progress');
  box.dataset.tone = running ? 'info' : succeeded(job) ? 'ok' : 'bad';
  field(box, 'running').hidden = !running;
  if (known) progress.value = job.progress;
  else progress.removeAttribute('value');
  const when = job.finished ?? job.started;
  fill(box, {
    outcome: outcome(job),
    percent: known ? `${Math.floor(job.progress * 100)} %` : '',
    when: when ? ago(when, serverNow()) : '',
    'job-message': job.state === 'failed' ? '' : job.message ?? '',
  });
  field(box, 'when').title = when ? `${local(when)} (${utc(when)})` : '';
  const key = `${job.id}:${job.state}`;
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  fillList(field(box, 'job-errors'), job.result?.errors ?? []);
  field(box, 'job-facts').replaceChildren(...jobFacts(job.result ?? {}).map(factRow));
}

// ---- config ----

function configPage() {
  const root = template('config');
  let key = '';

  async function load() {
    const config = await request('config');
    const newKey = JSON.stringify(config);
    if (newKey !== key) fillConfig(root, config);
    key = newKey;
  }

  const slot = lane(() => attempt(load, field(root, 'config-error')), 10);
  return { name: 'config', title: () => 'Configuration', root, update: () => slot.run() };
}

function fillConfig(root, config) {
  fill(root, { file: config.file ? `File in force: ${config.file}` : 'No configuration file is in force.' });
  byTest(root, 'config-missing').hidden = config.missing.length === 0;
  field(root, 'warnings-box').hidden = config.warnings.length === 0;
  fillList(field(root, 'missing'), config.missing);
  fillList(field(root, 'warnings'), config.warnings);
  const missingFirst = (a, b) => Number(isMissing(b)) - Number(isMissing(a));
  field(root, 'settings').replaceChildren(...[...config.settings].sort(missingFirst).map(settingRow));
}

function isMissing(setting) {
  return setting.required && !setting.set;
}

function settingRow(setting) {
  const row = make('tr', '', isMissing(setting) ? 'missing' : '');
  const name = make('th', setting.name, 'code');
  name.scope = 'row';
  if (isMissing(setting)) name.append(' ', make('span', 'missing', 'tag bad'));
  else if (setting.required) name.append(' ', make('span', 'required', 'tag'));
  if (setting.secret) name.append(' ', make('span', 'secret', 'tag'));
  const known = setting.set || setting.value;
  const value = known ? setting.value : 'not set';
  row.append(name, make('td', value, known ? 'code' : 'muted'), make('td', setting.source, 'muted'));
  return row;
}

// ---- start ----

byTest(document, 'logout').addEventListener('click', logout);
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', () => {
  route();
  focusHeading();
});
boot();
