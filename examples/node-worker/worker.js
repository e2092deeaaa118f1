#!/usr/bin/env node
// A worker in plain JavaScript: docs/protocol.md over jsonstdio, with nothing but Node 18 or later.
// Replace COMMANDS at the end with your own. Copy the rest as it is.
"use strict";
const { spawn } = require("node:child_process");

const MAX_FRAME = 64 << 20;
const WINDOW = { items: 256, bytes: 1 << 20 };
const CONCURRENCY = 16;
const NO_INPUT = 1, FAILED = 2, NOT_STARTED = 4; // flags
const REQUIRED = Symbol("required");
const TRACE_HEADERS = ["traceparent", "tracestate", "baggage"]; // in the metadata of a call, and of its handler's calls

// ---- Errors

class Failure extends Error { // an error with a type of the protocol; body: the host's error, unchanged
  constructor(type, message, body) {
    super(message);
    Object.assign(this, { name: type, body });
  }
}

class FailedItem { // one failed item of a stream that goes on: commands yield it, and get it in their input
  constructor(error) { this.error = error; }
}

const received = (body) => new Failure(body?.type ?? "Error", body?.message ?? "", body);

function errorBody(error) {
  if (!(error instanceof Error)) return { type: "Error", message: String(error) };
  if (error.body) return error.body;
  const body = { type: error.name, bases: [], message: error.message.replace(/\p{Cs}/gu, "\ufffd"), frames: [] };
  for (let base = Object.getPrototypeOf(error.constructor); base?.name; base = Object.getPrototypeOf(base)) {
    body.bases.push(base.name);
  }
  if (error.data !== undefined) body.data = error.data; // the host reads it with RemoteError.Data
  for (const [, name, file, line] of String(error.stack).matchAll(/^ +at (?:(.+) \()?(.+?):(\d+):\d+\)?$/gm)) {
    body.frames.unshift({ file, line: Number(line), function: name ?? "<anonymous>" }); // innermost last
  }
  return error.cause === undefined ? body : { ...body, cause: errorBody(error.cause) };
}

// ---- Values: JSON. A map with one key is a value that JSON lacks. Times, arrays and large integers pass through unchanged.

class Tagged {
  constructor(tag, value) { Object.assign(this, { tag, value }); }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const FLOATS = { nan: NaN, inf: Infinity, "-inf": -Infinity };
const isMap = (v) => v !== null && typeof v === "object" && Object.getPrototypeOf(v) === Object.prototype;
const isTag = (keys) => keys.length === 1 && keys[0].startsWith("$");

function decode(body) {
  try {
    return body.length === 0 ? null : fromJSON(JSON.parse(utf8.decode(body)), 0);
  } catch (error) {
    throw new Failure("BadArguments", `the body can't be decoded: ${error.message}`);
  }
}

function fromJSON(v, depth, wrapped = false) {
  if (typeof v === "string" && /\p{Cs}/u.test(v)) throw new Error("lone surrogate");
  if (v === null || typeof v !== "object") return v;
  const keys = Array.isArray(v) ? [] : Object.keys(v);
  if (isTag(keys) && !wrapped) return untag(keys[0], v[keys[0]], depth); // a tag is no level
  if (depth === 500) throw new Error("more than 500 levels");
  if (Array.isArray(v)) return v.map((item) => fromJSON(item, depth + 1));
  return Object.fromEntries(keys.map((key) => [fromJSON(key), fromJSON(v[key], depth + 1)]));
}

function untag(tag, v, depth) {
  if (tag === "$bytes") return binary(v);
  if (tag === "$float" && Object.hasOwn(FLOATS, v)) return FLOATS[v];
  if (tag === "$time" && /^\d{4}-\d\d-\d\dT[\d:]{8}(\.\d{1,9})?Z$/.test(v) && !isNaN(Date.parse(v))) return new Tagged(tag, v);
  if (tag === "$duration" && Number.isInteger(v)) return new Tagged(tag, v);
  if (tag === "$int" && /^-?0x[0-9a-f]+$/.test(v)) return new Tagged(tag, v);
  if (tag === "$map" && isMap(v) && isTag(Object.keys(v))) return fromJSON(v, depth, true);
  if (tag === "$array") {
    const [, kind, size] = /^[<|]([a-zA-Z])(\d+)/.exec(v.dtype);
    const bytes = v.shape.reduce((n, dimension) => n * dimension, size * (kind === "U" ? 4 : 1));
    const whole = v.shape.every((dimension) => Number.isInteger(dimension) && dimension >= 0);
    if (whole && binary(v.data).length === bytes) return new Tagged(tag, v);
  }
  throw new Error(`a bad ${tag}`);
}

function binary(text) {
  const data = Buffer.from(text, "base64");
  if (data.toString("base64") !== text) throw new Error("bad base64"); // Buffer.from skips what it does not know
  return data;
}

function encode(v, path = "value", depth = 0) {
  const bad = (why) => new Failure("BadResult", `${path} can't be encoded: ${why}`);
  if (v === null || v === undefined) return "null";
  if (typeof v === "boolean") return String(v);
  if (typeof v === "number") {
    if (!Number.isFinite(v)) return `{"$float":"${Object.keys(FLOATS).find((name) => Object.is(FLOATS[name], v))}"}`;
    if (Object.is(v, -0)) return "-0.0";
    return Number.isSafeInteger(v) || /[.e]/.test(v) ? String(v) : `${v}.0`; // digits alone would be an integer
  }
  if (typeof v === "string") {
    if (/\p{Cs}/u.test(v)) throw bad("lone surrogate");
    return JSON.stringify(v);
  }
  if (v instanceof Uint8Array) return JSON.stringify({ $bytes: Buffer.from(v).toString("base64") });
  if (v instanceof Date) return JSON.stringify({ $time: v.toISOString().replace(".000Z", "Z") });
  if (v instanceof Tagged) return JSON.stringify({ [v.tag]: v.value });
  if (depth === 500) throw bad("more than 500 levels");
  if (Array.isArray(v)) return `[${v.map((item, i) => encode(item, `${path}[${i}]`, depth + 1)).join()}]`;
  if (!isMap(v)) throw bad(`a ${v.constructor?.name ?? typeof v}`);
  const keys = Object.keys(v);
  const map = `{${keys.map((key) => `${encode(key, path)}:${encode(v[key], `${path}.${key}`, depth + 1)}`).join()}}`;
  return isTag(keys) ? `{"$map":${map}}` : map;
}

// ---- Frames: a JSON object, and if there is a body, a tab and the body

const write = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr); // console.log must not spoil the connection
process.stdout.on("error", () => {}); // the host is gone; standard input ends as well

function weight({ name = "", session = "", meta = {} }, body) {
  const texts = [name, session, ...Object.entries(meta).flat()];
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 256 + body + 8 * Object.keys(meta).length);
}

function send(frame, body = "") {
  if (weight(frame, Buffer.byteLength(body)) > host.max_frame) throw new Failure("TooLarge", "a frame above max_frame");
  write(JSON.stringify(frame) + (body && "\t") + body + "\n");
}

function broken(why) { // a protocol error ends the connection
  process.stderr.write(`protocol error: ${why}\n`);
  process.exit(1);
}

function receive(line) {
  const tab = line.includes(9) ? line.indexOf(9) : line.length;
  const body = line.subarray(tab + 1);
  let frame;
  try {
    frame = { id: 0, flags: 0, ...JSON.parse(utf8.decode(line.subarray(0, tab))) };
  } catch (error) {
    broken(`not a frame: ${error.message}`);
  }
  const { kind, id } = frame;
  if (!Object.hasOwn(ON, kind) || (kind === "hello") !== (host.version === undefined)) broken(`${kind} out of place`);
  if (weight(frame, body.length) > host.max_frame) broken("a frame above max_frame");
  if (!["item", "end", "error", "cancel", "credit"].includes(kind)) return ON[kind](frame, body);
  if (id > (id % 2 ? lastCall : lastRequest)) broken(`${kind} for ${id}, which never was`);
  const target = id % 2 ? calls.get(id) : requests.get(id);
  if (target) ON[kind](target, frame, body); // else it crossed the end
}

// ---- Calls

let host = { max_frame: MAX_FRAME }; // its hello, once it has come
let lastCall = 0, lastRequest = 0; // the highest ids: the host's are odd, ours even
const calls = new Map(), requests = new Map(), sessions = new Map();

class Inbox { // a direction towards us: the input of a call, or the answer to a request of ours
  constructor(id, call, ended) {
    Object.assign(this, { id, call, ended, unwanted: false, queue: [], items: 0, bytes: 0, result: null, error: null });
  }

  put({ flags }, body) {
    if (this.unwanted) return;
    if (this.ended) broken(`an item for ${this.id}, whose input has ended`);
    this.attempt(() => {
      const value = decode(body);
      this.queue.push([flags & FAILED ? new FailedItem(received(value)) : value, body.length]);
    });
  }

  end(result) {
    if (this.ended) broken(`a second end for ${this.id}`);
    this.ended = true;
    this.attempt(() => { this.result = result(); });
  }

  attempt(decoding) { // a body that can't be decoded is an error of this call alone
    try {
      decoding();
    } catch (error) {
      this.error = error;
    }
    this.call.wake();
  }

  get open() { return !this.ended && !this.unwanted; }

  cancel() { // to the sender of input: send no more; to the answerer of a request: stop
    if (this.open) send({ kind: "cancel", id: this.id });
    this.unwanted = true;
  }

  async *[Symbol.asyncIterator]() { // breaking out of it cancels
    try {
      for (;;) {
        await this.call.until(() => this.queue.length > 0 || this.ended || this.error);
        if (this.queue.length === 0) break;
        const [value, size] = this.queue.shift();
        this.items += 1;
        this.bytes += size;
        if (this.open && (this.items >= WINDOW.items / 2 || this.bytes >= WINDOW.bytes / 2)) {
          send({ kind: "credit", id: this.id, items: this.items, bytes: this.bytes });
          this.items = this.bytes = 0;
        }
        yield value;
      }
      if (this.error) throw this.error;
      return this.result;
    } finally {
      this.cancel();
    }
  }
}

class Call { // a call of the host's, as its command sees it
  constructor({ id, name, flags, session = "", meta = {}, ttl = 0 }) {
    Object.assign(this, { id, name, session, meta, credit: { ...host.window }, waiting: [], begun: Date.now() });
    this.deadline = ttl > 0 ? this.begun + ttl : null; // told, not enforced: the host cancels
    this.abort = new AbortController();
    this.input = new Inbox(id, this, (flags & NO_INPUT) !== 0);
  }

  get signal() { return this.abort.signal; }

  get state() { // the state of the session; null without a session
    if (this.session === "") return null;
    if (!sessions.has(this.session)) sessions.set(this.session, {});
    return sessions.get(this.session);
  }

  async until(ready) { // every wait of a command is this one, so a cancel ends it
    for (;;) {
      this.signal.throwIfAborted();
      if (ready()) return;
      await new Promise((resolve) => this.waiting.push(resolve));
    }
  }

  wake() { this.waiting.splice(0).forEach((resolve) => resolve()); }

  cancel(reason = "the call was cancelled") {
    this.input.ended = true;
    this.abort.abort(new Failure("Cancelled", reason));
    this.wake();
  }

  async emit(item) {
    const failed = item instanceof FailedItem;
    const body = encode(failed ? errorBody(item.error) : item);
    await this.until(() => this.credit.items > 0 && this.credit.bytes > 0);
    send({ kind: "item", id: this.id, flags: failed ? FAILED : 0 }, body);
    this.credit.items -= 1;
    this.credit.bytes -= Buffer.byteLength(body);
  }

  request(name, value) { // calls a function of the host's: an iterator of its items that returns its result
    this.signal.throwIfAborted();
    if (requests.size >= host.calls) throw new Failure("Saturated", `more than ${host.calls} calls to the host`);
    const id = lastRequest + 2, ttl = this.deadline === null ? 0 : Math.max(1, this.deadline - Date.now());
    const meta = Object.fromEntries(TRACE_HEADERS.filter((key) => Object.hasOwn(this.meta, key)).map((key) => [key, this.meta[key]]));
    send({ kind: "call", id, parent: this.id, flags: NO_INPUT, name, ttl, session: this.session, meta }, encode(value));
    lastRequest = id;
    requests.set(id, new Inbox(id, this, false));
    return requests.get(id)[Symbol.asyncIterator]();
  }

  async ask(name, value) { // its result alone
    for (const answer = this.request(name, value); ;) {
      const step = await answer.next();
      if (step.done) return step.value;
    }
  }

  log(level, message, fields = {}) {
    send({ kind: "log" }, encode({ level, logger: "worker", message, fields, call: this.id, time: Date.now() / 1000 }));
  }
}

async function serve(call, body) {
  let flags = NOT_STARTED;
  try {
    if (!Object.hasOwn(COMMANDS, call.name)) throw new Failure("UnknownCommand", `no command ${call.name}`);
    if (calls.size > host.concurrency) throw new Failure("Saturated", `more than ${host.concurrency} calls at once`);
    const command = COMMANDS[call.name], args = bind(command.params, decode(body));
    flags = 0;
    const result = isStream(command) ? await pump(command.run(args, call), call) : await command.run(args, call);
    answer(call, { kind: "end" }, encode(result));
  } catch (error) {
    const { data, ...rest } = errorBody(error);
    try {
      answer(call, { kind: "error", flags }, encode(data === undefined ? rest : { ...rest, data }));
    } catch (why) {
      try {
        answer(call, { kind: "error", flags }, encode({ ...rest, notes: [`its data can't be sent: ${why.message}`] }));
      } catch {
        answer(call, { kind: "error", flags }, encode({ type: "BadResult", message: `the error can't be sent: ${why.message}` }));
      }
    }
  }
}

function bind(params, value) { // a map is arguments by name; another value except null is the first argument
  const names = Object.keys(params);
  const args = { ...params, ...(value === null || isMap(value) ? value : { [names[0] ?? "0"]: value }) };
  for (const name in args) {
    if (!Object.hasOwn(params, name)) throw new Failure("BadArguments", `unexpected argument ${name}`);
    if (args[name] === REQUIRED) throw new Failure("BadArguments", `missing argument ${name}`);
  }
  return args;
}

async function pump(stream, call) {
  try {
    for (;;) {
      const step = await stream.next();
      if (step.done) return step.value;
      await call.emit(step.value);
    }
  } finally {
    await stream.return();
  }
}

function answer(call, frame, body) {
  for (const request of requests.values()) if (request.call === call) request.cancel();
  send({ ...frame, id: call.id }, body); // if it throws, the call is still open
  calls.delete(call.id);
  call.cancel("the call has ended"); // ends all parts that still go on
}

const ON = {
  hello(_, body) {
    host = JSON.parse(body);
    if (host.version !== 1 || host.codec !== "json") broken(`version ${host.version}, codec ${host.codec}`);
    host.max_frame = Math.min(host.max_frame, MAX_FRAME);
  },
  call(frame, body) {
    if (frame.id % 2 === 0 || frame.id <= lastCall) broken(`a call ${frame.id} after ${lastCall}`);
    lastCall = frame.id;
    const call = new Call(frame);
    calls.set(call.id, call);
    call.served = serve(call, body);
  },
  item(target, frame, body) { (target.input ?? target).put(frame, body); },
  end(target, frame, body) { // of the input, or of a request
    (target.input ?? target).end(() => decode(body));
    requests.delete(frame.id);
  },
  error(target, frame, body) {
    if (target instanceof Call) broken(`an error for ${frame.id} from its opener`);
    target.end(() => { throw received(decode(body)); });
    requests.delete(frame.id);
  },
  cancel(target, frame) { if (target instanceof Call) target.cancel(frame.name); },
  credit(target, { items = 0, bytes = 0 }) {
    if (items < 0 || bytes < 0) broken("negative credit");
    if (!(target instanceof Call)) return; // a request of ours has no input
    target.credit.items += items;
    target.credit.bytes += bytes;
    target.wake();
  },
  ping({ id }) {
    const running = [...calls.values()].map((call) => ({ id: call.id, name: call.name, ms: Date.now() - call.begun }));
    send({ kind: "pong", id }, encode({ running }));
  },
  pong() {}, // we send no pings
  bye() {}, // running calls go on; then the host closes
};

// ---- Commands. An async generator streams its yielded values, then returns its result.

const isStream = (command) => command.run.constructor.name === "AsyncGeneratorFunction";
const signature = (params) => Object.entries(params).map(([name, value]) =>
  value === REQUIRED ? { name, required: true } : { name, required: false, default: value });

const COMMANDS = {
  "snakepit.describe": { params: {}, run: () => Object.entries(COMMANDS).map(([name, command]) =>
    ({ name, doc: command.doc ?? "", stream: isStream(command), params: signature(command.params) })) },
  "snakepit.forget": { params: {}, run(_, call) { sessions.delete(call.session); } },

  "conformance.echo": { doc: "Returns the value.", params: { value: null }, run: ({ value }) => value },
  "conformance.count": {
    doc: "Streams the integers below n.", params: { n: REQUIRED, size: 0, fail: false },
    async *run({ n, size, fail }) {
      for (let i = 0; i < n; i++) yield size > 0 ? Buffer.alloc(size, "x") : i;
      if (fail) throw new Error("failed as asked");
      return { sent: n };
    },
  },
  "conformance.mixed": { params: { n: REQUIRED }, async *run({ n }) {
    for (let i = 0; i < n; i++) yield i % 2 ? new FailedItem(new Error(`${i} is odd`)) : i;
  } },
  "conformance.fail": { params: { message: REQUIRED, data: null }, run({ message, data }) {
    throw Object.assign(new Error(message, { cause: new Error("the cause") }), data === null ? {} : { data });
  } },
  "conformance.wait": { params: {}, run: (_, call) => call.until(() => false) },
  "conformance.sum": { params: {}, async run(_, call) {
    let sum = 0;
    for await (const item of call.input) if (!(item instanceof FailedItem)) sum += item;
    return sum;
  } },
  "conformance.double": { params: {}, async *run(_, call) {
    for await (const item of call.input) yield item instanceof FailedItem ? item : 2 * item;
  } },
  "conformance.first": { params: {}, async run(_, call) { for await (const item of call.input) return item; } },
  "conformance.context": { params: {}, run: (_, { session, meta, deadline }) => ({
    session: session || null, metadata: meta, remaining: deadline === null ? null : (deadline - Date.now()) / 1000,
  }) },
  "conformance.remember": { params: { value: null }, run({ value }, call) {
    if (call.state && value !== null) call.state.value = value;
    return call.state?.value;
  } },
  "conformance.callback": { params: { name: REQUIRED, value: null }, run: ({ name, value }, call) => call.ask(name, value) },
  "conformance.callbacks": { params: { name: REQUIRED, value: null }, async run({ name, value }, call) {
    const items = [];
    for await (const item of call.request(name, value)) items.push(item);
    return items;
  } },
  "conformance.log": { params: { level: REQUIRED, message: REQUIRED }, run({ level, message }, call) {
    call.log(level, message, { answer: 42 });
  } },
  "conformance.print": { params: { text: REQUIRED, times: REQUIRED }, run({ text, times }) {
    process.stderr.write(text.repeat(times));
  } },
  "conformance.orphan": { params: { holds: false }, run({ holds }) { // there is no fork
    spawn("sleep", ["20"], { stdio: ["ignore", holds ? "inherit" : "ignore", "ignore"], detached: true }).unref();
  } },
  "conformance.exit": { params: { code: REQUIRED }, run: ({ code }) => process.exit(code) },
  "conformance.unsendable": { params: {}, run: () => ({ culprit: () => {} }) },
};

// ---- The connection, from hello to the end of standard input

write("\n"); // ends a line that was printed before
send({ kind: "hello" }, JSON.stringify({
  versions: [1], features: [], codecs: ["json"], max_frame: MAX_FRAME, window: WINDOW, concurrency: CONCURRENCY,
  commands: Object.entries(COMMANDS).map(([name, command]) => ({ name, stream: isStream(command) })),
  pid: process.pid, runtime: `node ${process.versions.node}`, library: "node-worker 0.1.0",
  token: process.env.SNAKEPIT_WORKER_TOKEN,
}));
for (const name in process.env) if (/^SNAKEPIT_.*_(FD|TOKEN)$/.test(name)) delete process.env[name]; // not for our children

let pending = [], size = 0;
process.stdin.on("data", (chunk) => {
  for (let at; (at = chunk.indexOf(10)) >= 0; chunk = chunk.subarray(at + 1)) {
    receive(Buffer.concat([...pending, chunk.subarray(0, at)]));
    pending = [], size = 0;
  }
  pending.push(chunk);
  if ((size += chunk.length) > 6 * MAX_FRAME) broken("a line without an end"); // an escape is six times as long
});
process.stdin.on("end", async () => {
  for (const call of calls.values()) call.cancel("the host has closed");
  setTimeout(() => process.exit(0), 1000); // for a command that goes on
  await Promise.all([...calls.values()].map((call) => call.served));
  process.exit(0);
});
