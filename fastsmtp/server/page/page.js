// The page: asks /status every second, and shows what it says.

import { changes, conditions, missing } from "./changes.js";
import { Plot, spark } from "./plot.js";
import { History } from "./samples.js";
import * as words from "./words.js";

const INTERVAL = 1000; // milliseconds between two questions
const PATIENCE = 4000; // for an answer
const MAX_EVENTS = 200;
const LATE = 0.1; // seconds of loop lag that are marked
const QUANTILES = ["median", "95 %", "99 %"];

const history = new History();
let goneSince = null;

const element = (id) => document.getElementById(id);

function make(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function data(value, text, className) {
  const made = make("data", className, text);
  made.value = String(value);
  return made;
}

// -- plots ----------------------------------------------------------------------------------------------------------

const PLOTS = [
  { key: "messages", title: "Messages per second", names: ["accepted", "refused"], least: 10, format: words.rate },
  { key: "latency", title: "Time from MAIL to the verdict", names: QUANTILES, least: 0.001, format: words.seconds },
  { key: "sessions", title: "Open sessions", names: ["open"], least: 10, format: words.amount },
  { key: "octets", title: "Octets of accepted mail per second", names: ["accepted"], least: 1000, format: words.octets },
  { key: "store", title: "Time of the store", names: QUANTILES, least: 0.001, format: words.seconds },
  { key: "hooks", title: "Time of hooks", names: QUANTILES, least: 0.001, format: words.seconds, counts: "hook_seconds" },
  { key: "connections", title: "Connections per second", names: ["accepted", "turned away"], least: 10, format: words.rate },
  { key: "lag", title: "Event loop lag of the slowest worker", names: ["late by"], least: 0.001, format: words.seconds },
  { key: "processor", title: "CPU of all workers", names: ["used"], least: 1, format: words.percent },
].map((about) => ({ plot: new Plot(about), counts: about.counts }));

function showPlots(status) {
  for (const { plot, counts } of PLOTS) {
    plot.element.hidden = counts !== undefined && status.totals[counts].count === 0;
    plot.show(history.points);
  }
}

// -- head -----------------------------------------------------------------------------------------------------------

function stateOf(status) {
  if (status.state !== "ready") return ["", status.state];
  const wanted = status.workers_wanted ?? status.workers.length;
  const absent = missing(status).length;
  if (absent > 0) return ["bad", `${wanted - absent} of ${wanted} workers ready`];
  return ["good", "ready"];
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text; // else a screen reader would say it again
}

function showState(kind, text) {
  element("state").className = `state ${kind}`;
  say(element("state"), text);
}

function showHead(status) {
  say(element("version"), status.version);
  say(element("uptime"), words.duration(status.uptime_seconds));
  say(element("master"), `pid ${status.pid}`);
  say(element("listeners"), status.listeners.join(", "));
  document.title = `fastsmtp on ${location.host || status.admin}`;
}

function showConditions(found) {
  const list = element("conditions");
  const old = new Map([...list.children].map((item) => [item.dataset.key, item]));
  list.replaceChildren(...found.map(({ key, kind, text }) => {
    const item = old.get(key) ?? make("li");
    item.className = `condition ${kind}`;
    item.dataset.key = key;
    say(item, text);
    return item;
  }));
}

// -- workers --------------------------------------------------------------------------------------------------------

function cell(name, className, ...children) {
  const made = make("td", className, ...children);
  made.dataset.name = name;
  return made;
}

function rowOf(worker, process, isFirst) {
  const point = history.points.at(-1);
  const lag = process.loop_lag_seconds;
  const cpu = point?.cpu[worker.worker];
  const kind = { ready: "good", draining: "", starting: "" }[process.state];
  const plot = () => spark(history.points, (each) => each.cpu[worker.worker], 1, `CPU of worker ${worker.worker}`);
  const row = make(
    "tr", isFirst ? "" : "second",
    cell("Worker", "", make("b", "", String(worker.worker))),
    cell("State", "", make("span", `state ${kind}`, process.state), " ", make("span", "pid", `pid ${process.pid}`)),
    cell("Sessions", "number", data(process.open_connections, words.whole(process.open_connections))),
    cell("Accepts", "number", isFirst && point ? `${words.rate(point.accepts[worker.worker] ?? 0)}/s` : ""),
    cell("Loop lag", `number ${lag >= LATE ? "hot" : ""}`, data(lag, words.seconds(lag))),
    cell("Threads busy", "number", data(process.threads_busy, `${process.threads_busy} of ${process.threads}`)),
    cell("Hooks waiting", "number", data(process.hooks_pending, words.whole(process.hooks_pending))),
    cell("Memory", "number", data(process.rss_bytes, words.memory(process.rss_bytes))),
    cell("CPU", "cpu", ...(isFirst && cpu !== undefined ? [plot(), data(cpu, ` ${words.percent(cpu)}`)] : [])),
  );
  row.dataset.pid = process.pid;
  return row;
}

function rowsOf(worker) {
  if (worker.processes.length === 0) {
    const none = make("span", "state bad", "no process");
    return [make("tr", "", cell("Worker", "", make("b", "", String(worker.worker))), cell("State", "", none))];
  }
  const serving = (process) => (process.state === "ready" ? 0 : 1);
  const ordered = [...worker.processes].sort((one, other) => serving(one) - serving(other) || other.started - one.started);
  return ordered.map((process, index) => rowOf(worker, process, index === 0));
}

// -- lists ----------------------------------------------------------------------------------------------------------

const CLASSES = { 4: "temporary", 5: "permanent" };

function bar(label, value, most, total, className) {
  const filled = make("i");
  filled.style.width = `${most > 0 ? 100 * value / most : 0}%`;
  return make(
    "li", className,
    make("span", "what", label), make("span", "bar", filled),
    data(value, words.whole(value)), data(total, total === "" ? "" : words.whole(total), "total"),
  );
}

function showCounted(name, label = (text) => text, classOf = () => "") {
  const found = history.counted(name);
  const most = Math.max(0, ...found.map(([, recent]) => recent));
  element(name).replaceChildren(
    ...found.map(([text, recent, total]) => bar(label(text), recent, most, total, classOf(text))),
  );
  return found.length > 0;
}

function showQueue(queue) {
  element("queue-card").hidden = queue === undefined || queue === null;
  const counts = Object.entries(queue?.items ?? {});
  const most = Math.max(0, ...counts.map(([, count]) => count));
  element("queue").replaceChildren(...counts.map(([state, count]) => bar(state, count, most, "", "")));
}

const TOTALS = {
  "messages accepted": (totals) => totals.messages.accepted,
  "messages refused": (totals) => totals.messages.refused,
  "recipients accepted": (totals) => totals.recipients.accepted,
  "connections": (totals) => totals.connections,
  "TLS sessions": (totals) => totals.tls_handshakes.completed,
  "logins accepted": (totals) => totals.logins.accepted,
  "logins refused": (totals) => totals.logins.refused,
  "timeouts": (totals) => totals.timeouts,
  "worker deaths": (totals) => totals.worker_deaths,
  "sessions cut": (totals) => totals.sessions_cut,
  "workers that hung": (totals) => totals.worker_hangs,
};

function showTotals(totals) {
  const known = Object.entries(TOTALS).filter(([, of]) => of(totals) !== undefined);
  const rows = known.map(([name, of]) => {
    const value = data(of(totals), words.whole(of(totals)));
    value.id = `total-${name.replaceAll(" ", "-")}`;
    return make("div", "", make("dt", "", name), make("dd", "", value));
  });
  const size = make("div", "", make("dt", "", "mail accepted"), make("dd", "", data(totals.message_bytes, words.octets(totals.message_bytes))));
  element("totals").replaceChildren(...rows, size);
}

function note(kind, text) {
  const now = new Date();
  const time = make("time", "", now.toLocaleTimeString("en-GB"));
  time.dateTime = now.toISOString();
  element("events").prepend(make("li", "", time, make("span", kind, text)));
  while (element("events").children.length > MAX_EVENTS) element("events").lastChild.remove();
}

// -- every second ---------------------------------------------------------------------------------------------------

function show(status) {
  showHead(status);
  showState(...stateOf(status));
  showConditions(conditions(status));
  showPlots(status);
  element("workers").replaceChildren(...status.workers.flatMap(rowsOf));
  element("no-refusals").hidden = showCounted("refusals", (code) => code.replace("_", " "), (code) => CLASSES[code.match(/\d/)?.[0]]);
  element("commands-card").hidden = !showCounted("commands");
  element("replies-card").hidden = !showCounted("replies", (name) => name, (name) => CLASSES[name[0]]);
  showQueue(status.queue);
  showTotals(status.totals);
}

function take(status) {
  const before = history.last;
  if (goneSince !== null) note("good", "The server answers again");
  goneSince = null;
  document.body.classList.remove("gone");
  if (history.add(status)) note("warn", `The server was restarted: its master is pid ${status.pid}`);
  else if (before === undefined) note("", `Watching: the server is ${status.state}, ${status.workers.length} workers`);
  else for (const [kind, text] of changes(status, before)) note(kind, text);
  show(status);
}

function miss(error) {
  if (goneSince === null) {
    goneSince = new Date();
    note("bad", "The server does not answer");
  }
  document.body.classList.add("gone");
  showState("bad", "no answer");
  const text = `The server does not answer since ${goneSince.toLocaleTimeString("en-GB")}: what is below is old. Asking again every second.`;
  showConditions([{ key: "gone", kind: "bad", text }]);
  element("state").title = String(error);
}

async function look() {
  let status;
  try {
    const response = await fetch("status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    status = await response.json();
  } catch (error) {
    miss(error);
    return;
  }
  take(status);
}

async function watch() {
  const began = performance.now();
  if (!document.hidden || history.last === undefined) await look();
  setTimeout(watch, Math.max(100, INTERVAL - (performance.now() - began)));
}

element("plots").append(...PLOTS.map(({ plot }) => plot.element));
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
watch();
