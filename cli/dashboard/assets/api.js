// api.js: talks to the server, and says how its values read.
//
//   request      one call; errors become ApiError; remembers the CSRF token
//   Poller       runs one piece of work again and again while the page is visible, never twice at once
//   lane         a slower or independent request inside the poll: skipped while busy or not yet due
//   bytes ...    values as text, databases, restore targets and jobs in words

const TIMEOUT = 8000;
const FIRST_RETRY = 2000;

let csrf = '';

export class ApiError extends Error {
  /** status 0: no answer. answered: the server itself spoke, not a proxy or the network. */
  constructor(message, status, { answered = false, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.answered = answered;
    this.retryAfter = retryAfter;
  }
}

/** GET without a body, POST with one. */
export async function request(path, body) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), TIMEOUT);
  try {
    const response = await fetch(`/api/${path}`, options(body, abort.signal));
    const data = await response.json().catch(() => null);
    if (!response.ok) throw failure(response, data);
    if (data === null) throw new ApiError('The answer cannot be read.', response.status);
    if (data.csrf) csrf = data.csrf;
    return data;
  } catch (error) {
    throw error instanceof ApiError ? error : new ApiError('The server does not answer.', 0);
  } finally {
    clearTimeout(timer);
  }
}

function options(body, signal) {
  if (body === undefined) return { cache: 'no-store', signal };
  const headers = { 'Content-Type': 'application/json' };
  if (csrf) headers['X-CSRF-Token'] = csrf;
  return { method: 'POST', cache: 'no-store', headers, body: JSON.stringify(body), signal };
}

function failure(response, data) {
  const answered = typeof data?.error === 'string';
  const message = answered ? data.error : `The server answers ${response.status}.`;
  return new ApiError(message, response.status, { answered, retryAfter: data?.retry_after ?? null });
}

export class Poller {
  /** work: async, returns true when it went well. */
  constructor(work, interval = 1000) {
    this.work = work;
    this.interval = interval;
    this.active = false;
    this.running = false;
    this.again = false;
    this.timer = 0;
    document.addEventListener('visibilitychange', () => this.run());
  }

  start() {
    this.active = true;
    this.run();
  }

  stop() {
    this.active = false;
    clearTimeout(this.timer);
  }

  /** Runs at once, or right after the run under way. */
  async run() {
    clearTimeout(this.timer);
    if (!this.active || document.visibilityState !== 'visible') return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.running = true;
    const started = performance.now();
    let well = false;
    try {
      well = await this.work();
    } finally {
      this.running = false;
      this.schedule(well, started);
    }
  }

  schedule(well, started) {
    const pause = well ? this.interval - (performance.now() - started) : FIRST_RETRY;
    const delay = this.again ? 0 : Math.max(pause, 100);
    this.again = false;
    this.timer = setTimeout(() => this.run(), delay);
  }
}

/** The lane loads when asked, but not while busy nor before `seconds` have passed. */
export function lane(load, seconds = 1) {
  let busy = false;
  let due = 0;
  return {
    async run() {
      if (busy || performance.now() < due) return;
      busy = true;
      due = performance.now() + seconds * 1000 - 50;
      try {
        await load();
      } finally {
        busy = false;
      }
    },
    soon() {
      due = 0;
    },
  };
}

// ---- values ----

const DASH = '–';
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const NUMBER = new Intl.NumberFormat('en');
const LOCAL = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });

export function count(value) {
  return Number.isFinite(value) ? NUMBER.format(value) : DASH;
}

export function plural(value, word) {
  return `${count(value)} ${word}${value === 1 ? '' : 's'}`;
}

export function bytes(value) {
  if (!Number.isFinite(value)) return DASH;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function rate(value) {
  return Number.isFinite(value) ? `${value < 100 ? value.toFixed(1) : count(Math.round(value))}/s` : DASH;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return DASH;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return twoParts(whole, 60, 'min', 1, 's');
  if (whole < 86400) return twoParts(whole, 3600, 'h', 60, 'min');
  return twoParts(whole, 86400, 'd', 3600, 'h');
}

function twoParts(whole, big, bigUnit, small, smallUnit) {
  const rest = Math.floor((whole % big) / small);
  return `${Math.floor(whole / big)} ${bigUnit}${rest ? ` ${rest} ${smallUnit}` : ''}`;
}

export function ago(time, now) {
  if (!time) return 'never';
  const seconds = Math.floor((now - Date.parse(time)) / 1000);
  return seconds < 2 ? 'just now' : `${duration(seconds).replace('.0', '')} ago`;
}

/** In the browser's zone; time is text of the API or milliseconds. */
export function local(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? DASH : LOCAL.format(date);
}

export function utc(time) {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? DASH : `${date.toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

export function money(value, currency) {
  if (!Number.isFinite(value)) return DASH;
  const shown = value > 0 && value < 0.01 ? 0.01 : value;
  return `${shown === value ? '' : '< '}${shown.toFixed(2)} ${currency}`;
}

// ---- databases ----

/** A database that is not replicated has no figures. */
export function isReplicated(db) {
  return Boolean(db?.lag);
}

export function lagText(db) {
  // Null as long as nobody knows.
  return Number.isFinite(db?.lag?.seconds) ? `${duration(db.lag.seconds)} · ${plural(db.lag.txids, 'TXID')}` : DASH;
}

export function problemText(db) {
  if (db.healthy) return '';
  const error = db.last_error && !db.problem?.includes(db.last_error) ? `Last error: ${db.last_error}` : '';
  return [db.problem, error].filter(Boolean).join('\n') || (db.message ? '' : 'Unhealthy');
}

export function summary(all, shown) {
  const unhealthy = all.filter((db) => !db.healthy).length;
  const health = unhealthy ? `${count(unhealthy)} unhealthy` : 'all healthy';
  const filtered = shown < all.length ? `, ${count(shown)} shown` : '';
  return all.length ? `${plural(all.length, 'database')}, ${health}${filtered}` : 'No databases';
}

export function leaderText(leader) {
  if (!leader) return 'none';
  const place = leader.kind === 'application' ? 'in the application' : 'process of its own';
  return `${place}: ${leader.command}, pid ${leader.pid}`;
}

/** Every word of the filter must be somewhere in what the row shows. */
export function matches(db, filter) {
  const words = filter.toLowerCase().split(/\s+/);
  const text = [db.name, db.database, db.replica, db.state, db.healthy ? '' : 'unhealthy'].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
}

export function worstFirst(a, b) {
  return Number(a.healthy) - Number(b.healthy) || a.name.localeCompare(b.name) || a.id - b.id;
}

// ---- restore ----

const TIME = /^(\d{4}-\d\d-\d\d)[T ]+(\d\d:\d\d(?::\d\d(?:\.\d+)?)?) *(Z|UTC|[+-]\d\d:?\d\d)?$/i;
const HOW_TO_TYPE = 'Type a time such as 2026-11-23 06:25:00 (your zone) or one ending in Z, a TXID, or latest.';

/**
 * What a typed target means: { target, words, marker, time } or { error }.
 * target: text for the API; marker: where on the timeline, in milliseconds; time: the moment when one was typed.
 */
export function readTarget(typed, history) {
  const text = typed.trim();
  if (text.toLowerCase() === 'latest') {
    return { target: 'latest', words: 'the newest state on the replica', marker: Infinity };
  }
  if (/^\d+$/.test(text)) return readTxid(text, history);
  const parsed = parseTime(text);
  if (!parsed) return { error: HOW_TO_TYPE };
  if (history && parsed.time < Date.parse(history.first_time)) {
    return { error: `The replica begins at ${local(history.first_time)}.` };
  }
  const reached = history && !history.sampled ? txidAt(history.segments, parsed.time) : '';
  const words = `the newest state at or before ${local(parsed.time)} (${utc(parsed.time)})${reached}`;
  return { target: parsed.target, words, marker: parsed.time, time: parsed.time };
}

function readTxid(text, history) {
  const txid = Number(text);
  if (history && txid < history.first_txid) {
    return { error: `The replica begins at TXID ${history.first_txid}.` };
  }
  const home = history?.segments.find((segment) => segment.min_txid <= txid && txid <= segment.max_txid);
  const marker = home ? Date.parse(txid === home.min_txid ? home.first_time : home.last_time) : null;
  return { target: text, words: `the state at TXID ${text}`, marker };
}

/** Text without a zone is in the browser's. UTC text goes to the server as typed, with all its digits. */
function parseTime(text) {
  const match = TIME.exec(text);
  if (!match) return null;
  const [, day, clock, zone = ''] = match;
  const inUtc = /^(Z|UTC)$/i.test(zone);
  const time = Date.parse(`${day}T${clock}${inUtc ? 'Z' : zone}`);
  if (Number.isNaN(time)) return null;
  const full = clock.length === 5 ? `${clock}:00` : clock;
  return { time, target: inUtc ? `${day}T${full}Z` : new Date(time).toISOString() };
}

/** The TXID that a restore to this time reaches, as far as the segments tell. */
function txidAt(segments, time) {
  let before = null;
  for (const segment of segments) {
    const last = Date.parse(segment.last_time);
    if (segment.restorable === 'all' && Date.parse(segment.first_time) <= time && time < last) {
      return `, between TXID ${segment.min_txid} and ${segment.max_txid}`;
    }
    const newer = !before || last > before.last || (last === before.last && segment.max_txid > before.txid);
    if (last <= time && newer) before = { last, txid: segment.max_txid };
  }
  return before ? `, TXID ${before.txid}` : '';
}

/**
 * <name>.restored-<compact time>: the moment restored, or now for a TXID and for latest. Does not end as the database
 * does: a pattern of the configuration ("*.db") would have the copy replicated.
 */
export function restoredName(db, time) {
  const compact = new Date(time).toISOString().slice(0, 19).replace(/[-:]/g, '');
  return `${db.name}.restored-${compact}Z`;
}

export function fileError(name, db) {
  if (name === '') return 'Give the new file a name.';
  if (/[/\\]/.test(name) || name === '.' || name === '..') return 'Give a file name only, without folders.';
  return name === db.name ? 'This is the name of the database itself. Choose another.' : '';
}

// ---- jobs ----

const JOBS = {
  verify: { name: 'Verify', done: 'The replica is right' },
  snapshot: { name: 'Snapshot', done: 'Snapshot written' },
  restore: { name: 'Restore', done: 'Restored' },
};
const FACTS = [
  ['File', 'path'], ['Depth', 'depth'], ['TXID', 'txid'], ['Time', 'time'], ['Pages', 'pages'],
  ['Checksum', 'checksum'],
];

/** A verify that is done may still have found the replica wrong. */
export function succeeded(job) {
  return job.state === 'done' && job.result?.ok !== false;
}

export function outcome(job) {
  const words = JOBS[job.kind];
  if (job.state === 'running') return `${words.name} is running`;
  if (job.state === 'failed') return `${words.name} failed: ${job.message}`;
  return succeeded(job) ? words.done : 'The replica is wrong';
}

/** The result as pairs of term and text. */
export function jobFacts(result) {
  const present = FACTS.filter(([, key]) => result[key] !== undefined && result[key] !== null);
  return present.map(([term, key]) => {
    const value = result[key];
    if (key === 'time') return [term, `${local(value)} (${utc(value)})`];
    return [term, key === 'pages' ? count(value) : value];
  });
}
