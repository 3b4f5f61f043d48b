// The live page. What comes from the server, and so from whoever connects to it, is only ever put in as text.
"use strict";

const by = (id) => document.getElementById(id);
const MINUTE = 60_000;
const MOST_ROWS = 200;
const MOST_SAID = 200;

// Numbers for people.

const grouped = new Intl.NumberFormat("en");

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1000 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(count) || count >= 100 ? Math.round(count) : count.toFixed(1)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  seconds = Math.floor(seconds);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function make(name, className, text = "") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}

// A WebSocket that comes back. Each failure doubles the wait, up to a bound; a little chance keeps a hundred
// pages from coming back at the same instant.

class Line {
  static FIRST_WAIT = 500;
  static LONGEST_WAIT = 8000;
  // A server that is still there speaks, or answers, at least this often: a connection on which nothing comes
  // has gone without a word.
  constructor(path, { opened, heard, gone, silence }) {
    Object.assign(this, { path, opened, heard, gone, silence, wait: Line.FIRST_WAIT });
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}${this.path}`);
    this.socket = socket;
    this.listen();
    socket.onopen = () => {
      this.opened();
      this.listen();
    };
    socket.onmessage = (event) => {
      this.wait = Line.FIRST_WAIT;
      this.listen();
      this.heard(event.data);
    };
    socket.onclose = () => this.lost(socket);
  }

  listen() {
    clearTimeout(this.watchdog);
    if (this.silence) this.watchdog = setTimeout(() => this.lost(this.socket), this.silence);
  }

  lost(socket) {
    if (socket !== this.socket) return;
    this.socket = null;
    clearTimeout(this.watchdog);
    socket.onclose = socket.onmessage = socket.onopen = null;
    socket.close();
    const wait = this.wait * (0.75 + Math.random() / 2);
    this.wait = Math.min(this.wait * 2, Line.LONGEST_WAIT);
    this.timer = setTimeout(() => this.connect(), wait);
    this.gone(wait);
  }

  // Now, if it is not there.
  hurry() {
    if (this.socket) return;
    this.wait = Line.FIRST_WAIT;
    this.connect();
  }

  send(text) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(text);
    return true;
  }
}

// The last minute. A sample without numbers is a gap: nothing is drawn through it.

let history = [];
let last = null;

function remember(stats) {
  const at = performance.now();
  if (last && stats.uptime_s < last.uptime_s) history.push({ at }); // Another server.
  // A rate is taken over a second or so: over less, it would only flicker.
  const earlier = history.findLast((sample) => sample.stats && at - sample.at >= 950);
  const isSame = earlier && earlier.stats.uptime_s < stats.uptime_s;
  const per = (name) => {
    if (!isSame) return 0;
    return Math.max(0, (stats[name] - earlier.stats[name]) / (stats.uptime_s - earlier.stats.uptime_s));
  };
  const sample = { at, stats, now: stats.now, in: per("bytes_in"), out: per("bytes_out") };
  history.push(sample);
  history = history.filter((one) => at - one.at <= MINUTE + 2000);
  last = stats;
  return sample;
}

const WIDTH = 600;
const HEIGHT = 140;

// A round number above all of them, so that the scale does not tremble. Of bytes, 1000 are not round.
function ceiling(values, least, base = 10) {
  const most = Math.max(least, ...values);
  const unit = base ** Math.floor(Math.log(most) / Math.log(base));
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, base];
  return steps.map((step) => step * unit).find((round) => round >= most) ?? most;
}

function trace(name, top, end) {
  const line = [];
  const area = [];
  let run = [];
  const close = () => {
    if (run.length > 1) {
      line.push(`M${run.join("L")}`);
      const first = run[0].split(",")[0];
      const final = run[run.length - 1].split(",")[0];
      area.push(`M${first},${HEIGHT}L${run.join("L")}L${final},${HEIGHT}Z`);
    }
    run = [];
  };
  for (const sample of history) {
    if (!sample.stats) {
      close();
      continue;
    }
    const x = WIDTH * (1 - (end - sample.at) / MINUTE);
    const y = HEIGHT * (1 - sample[name] / top);
    // What leaves at the left is cut off there.
    if (x >= 0) run.push(`${x.toFixed(1)},${y.toFixed(1)}`);
  }
  close();
  return { line: line.join(""), area: area.join("") };
}

function draw() {
  const samples = history.filter((sample) => sample.stats);
  const end = history.length ? history[history.length - 1].at : 0;
  const topNow = ceiling(samples.map((sample) => sample.now), 2);
  const topRate = ceiling(samples.flatMap((sample) => [sample.in, sample.out]), 100, 1024);
  const now = trace("now", topNow, end);
  by("line-now").setAttribute("d", now.line);
  by("area-now").setAttribute("d", now.area);
  by("line-in").setAttribute("d", trace("in", topRate, end).line);
  by("line-out").setAttribute("d", trace("out", topRate, end).line);
  put(by("top-now"), `to ${grouped.format(topNow)}`);
  put(by("top-rate"), `to ${bytes(topRate)} a second`);
  const most = Math.max(0, ...samples.map((sample) => sample.now));
  const current = samples.length ? samples[samples.length - 1] : { now: 0, in: 0, out: 0 };
  by("chart-now").setAttribute("aria-label", `Connections during the last minute: now ${current.now}, at most ${most}`);
  by("chart-rate").setAttribute(
    "aria-label",
    `Bytes a second during the last minute: now ${bytes(current.in)} in, ${bytes(current.out)} out`,
  );
}

// The tables. Rows are kept from one picture to the next, so that a selection survives.

const rows = new Map();

function row(one) {
  const cells = {
    id: make("td", "number", `${one.id}`),
    peer: make("td", "peer", one.peer),
    state: make("td", ""),
    age: make("td", "number"),
    in: make("td", "number"),
    out: make("td", "number"),
  };
  cells.tag = make("span", "tag");
  cells.state.append(cells.tag);
  const element = document.createElement("tr");
  element.dataset.id = one.id;
  element.append(cells.id, cells.peer, cells.state, cells.age, cells.in, cells.out);
  return { element, cells };
}

function showConnections(connections) {
  // The newest first: they are what has changed.
  const shown = connections.slice(-MOST_ROWS).reverse();
  const open = new Set(shown.map((one) => one.id));
  for (const [id, { element }] of rows) {
    if (open.has(id)) continue;
    element.remove();
    rows.delete(id);
  }
  let next = by("rows").firstElementChild;
  for (const one of shown) {
    let known = rows.get(one.id);
    // A server that has been started again counts from 1.
    if (known && known.cells.peer.textContent !== one.peer) {
      known.element.remove();
      if (next === known.element) next = by("rows").firstElementChild;
      known = null;
    }
    if (!known) {
      known = row(one);
      rows.set(one.id, known);
    }
    const { element, cells } = known;
    if (element !== next) by("rows").insertBefore(element, next);
    next = element.nextElementSibling;
    put(cells.tag, one.state);
    cells.tag.classList.toggle("active", one.state === "active");
    put(cells.age, duration(one.age_s));
    put(cells.in, bytes(one.bytes_in));
    put(cells.out, bytes(one.bytes_out));
  }
  by("nobody").hidden = connections.length > 0;
  by("more").hidden = connections.length <= MOST_ROWS;
  put(by("more"), `and ${grouped.format(Math.max(0, connections.length - MOST_ROWS))} older ones`);
}

const REASONS = {
  finished: "the client ended first, and was answered",
  closed: "the server ended first",
  idle: "silent for too long",
  message: "a message took too long",
  write: "the client did not take what it was sent",
  reset: "the client reset the connection",
  "broken-pipe": "the client had gone when it was answered",
  rejected: "the client broke a rule, such as a line that is too long",
  aborted: "the server reset the connection",
  error: "another error",
  panicked: "a bug in the handler",
  stopped: "the server was stopping",
  cut: "the server was stopping, and could not wait longer",
};

function showEnded(ended) {
  const counts = Object.entries(ended).sort(([a, one], [b, other]) => other - one || a.localeCompare(b));
  const most = Math.max(1, ...counts.map(([, count]) => count));
  const items = [...by("ended").children];
  counts.forEach(([reason, count], at) => {
    let item = items[at];
    if (!item) {
      item = make("li", "");
      const bar = make("span", "bar");
      bar.append(make("span", ""));
      item.append(make("span", "name"), make("span", "count"), make("span", "what"), bar);
      by("ended").append(item);
    }
    const [name, number, what, bar] = item.children;
    put(name, reason);
    put(number, grouped.format(count));
    put(what, REASONS[reason] ?? "");
    bar.firstElementChild.style.width = `${(100 * count) / most}%`;
  });
  items.slice(counts.length).forEach((item) => item.remove());
  by("none-ended").hidden = counts.length > 0;
}

function show(stats) {
  const sample = remember(stats);
  for (const name of ["now", "peak", "accepted", "served", "refused", "failed", "threads"]) {
    put(by(name), grouped.format(stats[name]));
  }
  put(by("uptime"), duration(Math.floor(stats.uptime_s)));
  put(by("rate-in"), `${bytes(sample.in)}/s`);
  put(by("rate-out"), `${bytes(sample.out)}/s`);
  put(by("bytes-in"), bytes(stats.bytes_in));
  put(by("bytes-out"), bytes(stats.bytes_out));
  put(by("dropped"), `${grouped.format(stats.events_dropped)} events were too many to be counted here.`);
  by("dropped").hidden = stats.events_dropped === 0;
  showConnections(stats.connections);
  showEnded(stats.ended);
  draw();
  document.title = `${stats.now} · socket-steps`;
}

// Whether the server is there. Said in words that change seldom: they are read aloud.

let countdown;

function isHere() {
  clearInterval(countdown);
  by("retry").hidden = true;
  by("status").dataset.state = "live";
  document.body.classList.remove("is-gone");
  put(by("status"), "live");
}

function hasGone(wait) {
  clearInterval(countdown);
  if (history.length && history[history.length - 1].stats) history.push({ at: performance.now() });
  by("status").dataset.state = "gone";
  document.body.classList.add("is-gone");
  by("retry").hidden = false;
  document.title = "gone · socket-steps";
  const until = performance.now() + wait;
  put(by("status"), "the server has gone; trying again");
  const tell = () => {
    const seconds = Math.max(0, Math.ceil((until - performance.now()) / 1000));
    by("retry").textContent = seconds > 0 ? `Try now (${seconds} s)` : "Trying …";
  };
  tell();
  countdown = setInterval(tell, 500);
}

const live = new Line("/live", {
  opened: () => {},
  heard: (text) => {
    let stats;
    try {
      stats = JSON.parse(text);
    } catch {
      return;
    }
    isHere();
    show(stats);
  },
  gone: hasGone,
  silence: 10_000,
});

// The room.

function said(className, text, who) {
  const talk = by("talk");
  const wasAtEnd = talk.scrollTop + talk.clientHeight >= talk.scrollHeight - 20;
  const item = make("li", className);
  if (who) item.append(make("span", "who", who), make("span", "what", text));
  else item.textContent = text;
  talk.append(item);
  while (talk.children.length > MOST_SAID) talk.firstElementChild.remove();
  if (wasAtEnd) talk.scrollTop = talk.scrollHeight;
}

function mayTalk(yes) {
  by("line").disabled = !yes;
  by("send").disabled = !yes;
}

const room = new Line("/chat", {
  opened: () => mayTalk(true),
  heard: (text) => said("other", text, "someone"),
  gone: () => {
    if (!by("line").disabled) said("event", "The connection to the room was lost.");
    mayTalk(false);
  },
});

by("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = by("line").value;
  if (text === "" || !room.send(text)) return;
  said("you", text, "you");
  by("line").value = "";
});

by("retry").addEventListener("click", () => {
  live.hurry();
  room.hurry();
});
addEventListener("online", () => {
  live.hurry();
  room.hurry();
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") {
    live.hurry();
    room.hurry();
  }
});
