// The page of package debugpage. It has no dependencies. All text is set as text, never as HTML.
'use strict';

const byID = (id) => document.getElementById(id);

/** Makes an element with a class and children. */
function make(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// Times are in seconds.
function time(s) {
  if (s < 0.001) return `${Math.round(s * 1e6)} µs`;
  if (s < 1) return `${(s * 1e3).toPrecision(3)} ms`;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

function size(bytes) {
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (bytes < 1024 || unit === 'GiB') return `${unit === 'B' ? bytes : bytes.toPrecision(3)} ${unit}`;
    bytes /= 1024;
  }
}

const clock = (iso) => new Date(iso).toLocaleTimeString();
const count = (n) => n.toLocaleString('en');

/**
 * Updates a table in place, so that buttons keep the focus and selected text stays.
 *
 * @param table The table.
 * @param columns Each has a title and cell(row), which returns text, or [text, class], or an element to keep.
 * @param rows The data.
 * @param key Returns what identifies a row.
 * @param none The text of an empty table.
 */
function fillTable(table, columns, rows, key, none) {
  if (!table.rowsByKey) {
    table.rowsByKey = new Map();
    const head = table.createTHead().insertRow();
    for (const c of columns) head.append(make('th', c.className || '', c.title));
    table.createTBody();
    table.createCaption().className = 'soft';
  }
  const body = table.tBodies[0];
  const live = new Set();
  rows.forEach((row, at) => {
    const k = key(row);
    live.add(k);
    let tr = table.rowsByKey.get(k);
    if (!tr) {
      tr = document.createElement('tr');
      for (const c of columns) tr.append(make('td', c.className || ''));
      table.rowsByKey.set(k, tr);
    }
    if (body.rows[at] !== tr) body.insertBefore(tr, body.rows[at] || null);
    columns.forEach((c, i) => {
      const td = tr.cells[i];
      const v = c.cell(row);
      if (v instanceof Node) {
        if (!td.firstChild) td.append(v);
        return;
      }
      const [text, className] = Array.isArray(v) ? v : [v, ''];
      setText(td, text);
      td.className = `${c.className || ''} ${className}`;
    });
  });
  for (const [k, tr] of table.rowsByKey) {
    if (!live.has(k)) {
      tr.remove();
      table.rowsByKey.delete(k);
    }
  }
  table.tHead.hidden = rows.length === 0;
  setText(table.caption, rows.length === 0 ? none : '');
  table.caption.hidden = rows.length > 0;
}

/** Updates a list of details in place. */
function fillDetails(parent, rows, key, summary, body, none) {
  if (!parent.byKey) {
    parent.byKey = new Map();
    parent.none = make('p', 'none', none);
    parent.append(parent.none);
  }
  parent.none.hidden = rows.length > 0;
  const live = new Set();
  rows.forEach((row, at) => {
    const k = key(row);
    live.add(k);
    let d = parent.byKey.get(k);
    if (!d) {
      d = make('details', '', make('summary'), make('pre'));
      parent.byKey.set(k, d);
    }
    const place = parent.children[at + 1]; // behind the text for an empty list
    if (place !== d) parent.insertBefore(d, place || null);
    setText(d.firstChild, summary(row));
    setText(d.lastChild, body(row));
  });
  for (const [k, d] of parent.byKey) {
    if (!live.has(k)) {
      d.remove();
      parent.byKey.delete(k);
    }
  }
}

// The numbers on top: id, title, text, and a class if it is worth a look.
function numbers(s) {
  const c = s.counters;
  const waits = c.waiting > 0 ? 'warn' : '';
  const cells = [
    ['ready', 'workers ready', `${c.ready} / ${s.size}`, c.ready === 0 ? 'bad' : ''],
    ['running', 'calls run', count(c.running), ''],
    ['waiting', 'callers wait', count(c.waiting), waits],
    ['oldest', 'the oldest wait', c.waiting > 0 ? time(c.oldest_wait_seconds) : '–', waits],
    ['calls', 'calls so far', count(c.calls), ''],
    ['saturated', 'refused', count(c.saturated), c.saturated > 0 ? 'warn' : ''],
    ['lost', 'workers lost', count(c.lost), c.lost > 0 ? 'bad' : ''],
    ['starts', 'failed starts', count(c.start_fails), c.start_fails > 0 ? 'bad' : ''],
    ['replaced', 'replaced', count(c.replaced), ''],
    ['terminated', 'ended by force', count(c.terminated), c.terminated > 0 ? 'warn' : ''],
    ['sessions', 'sessions', count(c.sessions), ''],
  ];
  for (const [id, title, text, className] of cells) {
    let e = byID(`number-${id}`);
    if (!e) {
      e = make('div', '', make('b'), make('span', '', title));
      e.id = `number-${id}`;
      byID('numbers').append(e);
    }
    setText(e.firstChild, text);
    e.className = className;
  }
}

const svgNS = 'http://www.w3.org/2000/svg';

/** Draws bars of ten seconds each. */
function bars(id, title, values, unit, className) {
  let f = byID(`series-${id}`);
  if (!f) {
    const svg = document.createElementNS(svgNS, 'svg');
    svg.setAttribute('viewBox', `0 0 ${values.length} 30`);
    svg.setAttribute('preserveAspectRatio', 'none');
    for (let i = 0; i < values.length; i++) {
      const r = document.createElementNS(svgNS, 'rect');
      r.setAttribute('x', i);
      r.setAttribute('width', 0.85);
      svg.append(r);
    }
    f = make('figure', className, svg, make('figcaption'));
    f.id = `series-${id}`;
    byID('series').append(f);
  }
  const most = Math.max(...values);
  values.forEach((v, i) => {
    const h = most > 0 ? 30 * v / most : 0;
    const r = f.firstChild.children[i];
    r.setAttribute('height', h);
    r.setAttribute('y', 30 - h);
  });
  setText(f.lastChild, `${title}: ${unit(values[values.length - 1])}, at most ${unit(most)}`);
}

function series(s) {
  const perSecond = (n) => `${(n / 10).toPrecision(3)}/s`;
  bars('calls', 'calls', s.series.map((i) => i.calls), perSecond, '');
  bars('p95', '95th percentile', s.series.map((i) => i.p95_seconds), time, '');
  bars('failed', 'failed calls', s.series.map((i) => i.failed), perSecond, 'bad');
}

const stateClass = { ready: 'good', starting: 'soft', draining: 'warn', stopping: 'soft', dead: 'bad' };

let lastCalls = []; // of the last state, by worker for "what runs"

function runsOn(w) {
  const calls = lastCalls.filter((c) => c.worker === w.index && !c.function);
  if (calls.length === 0) return '';
  const more = calls.length > 1 ? ` and ${calls.length - 1} more` : '';
  const first = calls[0];
  return [`${first.command} for ${time(first.age_seconds)}${more}`, first.overdue ? 'bad' : first.age_seconds > 10 ? 'warn' : ''];
}

function workerActions(w, control) {
  const look = make('button', '', 'stacks');
  look.type = 'button';
  look.onclick = () => showStack(w);
  const flame = make('button', '', 'flame graph');
  flame.type = 'button';
  flame.onclick = () => showFlame(w);
  const all = make('span', '', look, flame);
  if (control) {
    for (const [what, title] of [['replace', 'replace'], ['terminate', 'end']]) {
      const b = make('button', '', title);
      b.type = 'button';
      b.onclick = () => change(`${what}?worker=${w.index}&pid=${w.pid}`, `worker ${w.index}: ${title}`);
      all.append(b);
    }
  }
  return all;
}

function workers(s) {
  fillTable(byID('workers'), [
    { title: 'worker', className: 'number', cell: (w) => String(w.index) },
    { title: 'state', cell: (w) => [w.stopped ? `${w.state}, only probed` : w.state, stateClass[w.state]] },
    { title: 'runs', cell: runsOn },
    { title: 'slots', className: 'number', cell: (w) => (w.slots ? `${w.running} / ${w.slots}` : '') },
    { title: 'CPU', className: 'number', cell: (w) => (w.cpu_seconds ? `${Math.round(w.cpu * 100)} %` : '') },
    { title: 'memory', className: 'number', cell: (w) => (w.memory_bytes ? size(w.memory_bytes) : '') },
    { title: 'calls', className: 'number', cell: (w) => count(w.calls) },
    { title: 'sessions', className: 'number', cell: (w) => (w.sessions ? count(w.sessions) : '') },
    { title: 'age', className: 'number', cell: (w) => time(w.age_seconds) },
    { title: 'protocol', cell: (w) => w.adapter || '' },
    { title: 'pid', className: 'number', cell: (w) => (w.pid ? `${w.pid}${w.machine ? ` on ${w.machine}` : ''}` : '') },
    { title: 'look', cell: (w) => (w.pid ? workerActions(w, s.control) : '') },
    { title: 'why', className: 'wide', cell: why },
    { title: 'runtime', cell: (w) => w.runtime || '' },
  ], s.workers, (w) => `${w.index} ${w.pid || 0}`, 'no worker');
}

function why(w) {
  const all = [];
  if (w.reason) all.push(w.reason);
  if (w.failures) all.push(`${w.failures} failed starts: ${(w.last_error || '').split('\n')[0]}`);
  for (const r of w.refused || []) all.push(`not ${r.split('\n')[0]}`);
  return all.join('; ');
}

const before = new Map(); // by call: the items and the time of the last state, for rates

function rate(c, now) {
  const key = `${c.worker} ${c.id} ${c.function}`;
  const items = c.to_host.items + c.to_worker.items;
  const old = before.get(key);
  before.set(key, { items, now, rate: 0 });
  if (!old || now <= old.now) return old ? old.rate : 0;
  const r = (items - old.items) / (now - old.now);
  before.get(key).rate = r;
  return r;
}

function flow(c) {
  if (c.worker < 0 || c.to_host.items + c.to_worker.items === 0) return '';
  if (c.rate > 0) return `${c.rate.toPrecision(3)} items/s`;
  if (c.to_host.items > 0 && c.host_credit.items <= 0) return ['waits for its caller', 'warn'];
  return ['no items lately', 'soft'];
}

function calls(s) {
  const now = Date.parse(s.time) / 1000;
  const keys = new Set();
  for (const c of s.calls) {
    c.rate = rate(c, now);
    keys.add(`${c.worker} ${c.id} ${c.function}`);
  }
  for (const k of before.keys()) if (!keys.has(k)) before.delete(k);
  setText(byID('calls-more'), s.more_calls ? `and ${count(s.more_calls)} more` : '');
  fillTable(byID('calls'), [
    { title: 'call', cell: (c) => (c.function ? `${c.command} (function)` : c.command) },
    { title: 'worker', className: 'number', cell: (c) => (c.worker < 0 ? 'waits' : String(c.worker)) },
    { title: 'since', className: 'number', cell: (c) => [time(c.age_seconds), c.overdue ? 'bad' : ''] },
    { title: 'waited', className: 'number', cell: (c) => (c.waited_seconds ? time(c.waited_seconds) : '') },
    { title: 'state', cell: (c) => (c.overdue ? ['goes on after its cancel', 'bad'] : c.cancelled ? ['cancelled', 'warn'] : '') },
    { title: 'came', className: 'number', cell: (c) => volume(c.to_host) },
    { title: 'sent', className: 'number', cell: (c) => volume(c.to_worker) },
    { title: 'flow', cell: flow },
    { title: 'credit of the worker', className: 'number', cell: (c) => (c.to_host.items ? `${count(Math.max(0, c.host_credit.items))} items` : '') },
    { title: 'session', cell: (c) => c.session || '' },
    { title: 'tenant', cell: (c) => c.tenant || '' },
    { title: 'arguments', className: 'wide', cell: (c) => c.arguments || '' },
  ], s.calls, (c) => `${c.worker} ${c.id || 0} ${c.function || false} ${c.number || 0} ${c.worker < 0 ? c.command + c.age_seconds : ''}`, 'nothing runs');
}

function volume(v) {
  if (!v.items && !v.bytes) return '';
  return v.items ? `${count(v.items)} items, ${size(v.bytes)}` : size(v.bytes);
}

function commands(s) {
  fillTable(byID('commands'), [
    { title: 'command', cell: (c) => c.name },
    { title: 'calls', className: 'number', cell: (c) => count(c.calls) },
    { title: 'failed', className: 'number', cell: (c) => [c.failed ? count(c.failed) : '', 'bad'] },
    { title: 'median', className: 'number', cell: (c) => (c.calls ? time(c.median_seconds) : '') },
    { title: '95 %', className: 'number', cell: (c) => (c.calls ? time(c.p95_seconds) : '') },
    { title: '95 % before', className: 'number', cell: (c) => (c.before_seconds ? time(c.before_seconds) : '') },
    { title: 'slowest', className: 'number', cell: (c) => (c.calls ? time(c.max_seconds) : '') },
    { title: 'mean wait', className: 'number', cell: (c) => (c.waited_seconds ? time(c.waited_seconds) : '') },
    { title: 'in all', className: 'number', cell: (c) => count(c.total) },
  ], s.commands, (c) => c.name, 'no calls yet');
}

function sessions(s) {
  const more = s.counters.sessions - s.sessions.length;
  setText(byID('sessions-more'), more > 0 ? `and ${count(more)} more` : '');
  fillTable(byID('sessions'), [
    { title: 'session', cell: (e) => e.id },
    { title: 'worker', className: 'number', cell: (e) => (e.lost ? ['lost', 'bad'] : e.worker < 0 ? '' : String(e.worker)) },
    { title: 'calls run', className: 'number', cell: (e) => count(e.running) },
    { title: 'wait', className: 'number', cell: (e) => count(e.waiting) },
    { title: 'snapshot', className: 'number', cell: (e) => (e.snapshot_bytes ? size(e.snapshot_bytes) : '') },
  ], s.sessions, (e) => e.id, 'no session');
}

function history(s) {
  fillDetails(byID('losses'), s.losses, (l) => l.time + l.text, (l) => `${clock(l.time)}  ${l.text}`,
    (l) => l.detail || 'it printed nothing', 'no worker was lost');
  fillDetails(byID('failures'), s.failures, (f) => `${f.command} ${f.text}`,
    (f) => `${clock(f.last)}  ${f.command}${f.worker < 0 ? '' : ` on worker ${f.worker}`}: ${f.text.split('\n')[0]}${f.count > 1 ? ` (${count(f.count)} times)` : ''}`,
    (f) => (f.arguments ? `arguments: ${f.arguments}\n\n` : '') + (f.traceback || f.text), 'no call has failed');
  setText(byID('events'), s.events.map((e) => `${clock(e.time)}  ${e.text}`).join('\n') || 'nothing has happened');
  setText(byID('log'), s.log.map((l) => `${clock(l.time)}  ${l.level.padEnd(5)}  ${l.text}`).join('\n') || 'nothing was logged');
}

function show(s) {
  lastCalls = s.calls;
  document.title = `${s.pool}: ${s.counters.ready} of ${s.size} workers`;
  setText(byID('pool'), s.pool);
  setText(byID('where'), `${s.program}, pid ${s.pid}${s.machine ? ` on ${s.machine}` : ''}, ${s.go}`);
  byID('control').hidden = !s.control;
  numbers(s);
  series(s);
  calls(s); // before workers, which show the calls
  workers(s);
  commands(s);
  sessions(s);
  history(s);
}

/** Asks for something by POST. Returns the response, or throws an error with its text. */
async function ask(what, headers) {
  const r = await fetch(what, { method: 'POST', headers });
  if (!r.ok) throw new Error(await r.text());
  return r;
}

async function change(what, title) {
  setText(byID('said'), `${title} …`);
  try {
    await ask(what, { Authorization: `Bearer ${byID('token').value}` });
    setText(byID('said'), `${title}: done`);
  } catch (e) {
    setText(byID('said'), `${title}: ${e.message}`);
  }
}

let again = null; // what the button repeats

async function showLook(title, load) {
  again = () => showLook(title, load);
  byID('look').hidden = false;
  setText(byID('look-title'), title);
  setText(byID('look-text'), 'asking …');
  setText(byID('look-stack'), '');
  byID('look-flame').replaceChildren();
  try {
    await load();
  } catch (e) {
    setText(byID('look-text'), '');
    setText(byID('look-stack'), e.message);
  }
  byID('look').scrollIntoView({ block: 'nearest' });
}

function showStack(w) {
  showLook(`Stacks of worker ${w.index}`, async () => {
    const look = await (await ask(`stack?worker=${w.index}&pid=${w.pid}`)).json();
    setText(byID('look-text'), `${clock(look.time)}  ${look.text || ''}`);
    setText(byID('look-stack'), [look.stack, look.error].filter(Boolean).join('\n'));
  });
}

function showFlame(w) {
  showLook(`Where worker ${w.index} spends its time`, async () => {
    setText(byID('look-text'), 'sampling for 5 s …');
    const root = await (await ask(`flame?worker=${w.index}&pid=${w.pid}&seconds=5`)).json();
    setText(byID('look-text'), root.samples
      ? `${root.samples} samples of its threads that ran, 100 in a second. The outermost frame is on top. A click shows one frame alone.`
      : 'No thread ran: it is idle, or it waits.');
    const whole = () => byID('look-flame').replaceChildren(flameOf(root, root.samples, whole));
    if (root.samples) whole();
  });
}

/** Draws a frame with its children below it. */
function flameOf(f, total, whole) {
  const name = make('div', 'name', f.name);
  name.title = `${f.name}: ${f.samples} samples, ${(100 * f.samples / total).toFixed(1)} %`;
  name.onclick = () => {
    const all = make('button', '', 'all');
    all.type = 'button';
    all.onclick = whole;
    byID('look-flame').replaceChildren(all, flameOf(f, f.samples, whole));
  };
  const row = make('div', 'row');
  for (const c of f.children || []) {
    const e = flameOf(c, total, whole);
    e.style.width = `${100 * c.samples / f.samples}%`;
    row.append(e);
  }
  return make('div', 'frame', name, row);
}

byID('reload').onclick = () => change('reload', 'reload');
byID('look-again').onclick = () => again();
byID('look-close').onclick = () => { byID('look').hidden = true; };

function status(text, className) {
  setText(byID('link'), text);
  byID('link').className = className;
}

const source = new EventSource('watch');
source.addEventListener('state', (e) => {
  status('live', 'live');
  show(JSON.parse(e.data));
});
source.addEventListener('closed', () => {
  status('the pool is closed', 'gone');
  source.close();
});
source.onerror = () => status('no connection', 'gone');
