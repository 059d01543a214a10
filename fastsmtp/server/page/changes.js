// What has changed between two answers of /status, and what is not as it should be, in words.

const HANGS = 3; // seconds without a turn of its loop, from which on a worker is said to hang

function byPid(worker) {
  return new Map(worker.processes.map((process) => [process.pid, process]));
}

// What the gauge overload says.
const OVERLOAD = ["", "MAIL gets 451", "new clients get 421", "no connection is accepted"];

// Workers that are to serve, and do not.
export function missing(status) {
  const wanted = status.workers_wanted ?? Infinity; // those above are about to leave
  return status.workers.filter((worker) => worker.worker < wanted && !worker.ready);
}

const sessions = (count) => `${count} ${count === 1 ? "session" : "sessions"}`;

function* changesOfWorker(worker, before) {
  const now = byPid(worker);
  const then = byPid(before);
  const name = `Worker ${worker.worker}`;
  for (const [pid, process] of now) {
    const state = then.get(pid)?.state;
    if (process.pid === 0 || process.state === state) continue;
    if (process.state === "starting") yield ["", `${name}: pid ${pid} starts`];
    if (process.state === "ready") yield ["good", `${name}: pid ${pid} serves`];
    if (process.state === "draining") yield ["warn", `${name}: pid ${pid} drains, with ${sessions(process.open_connections)}`];
  }
  for (const [pid, process] of then) {
    if (pid === 0 || now.has(pid)) continue;
    const leaving = process.state === "draining";
    yield leaving ? ["", `${name}: pid ${pid} has left`] : ["bad", `${name}: pid ${pid} has ended while ${process.state}`];
  }
}

function* changesOfReloads(after, before) {
  const now = after.totals.reloads;
  const then = before.totals.reloads;
  if (now.done > then.done) yield ["good", "Reload done: every worker is new"];
  if (now.given_up > then.given_up) yield ["bad", `Reload given up: ${after.last_reload.reason}`];
}

// Yields [kind, text] for each change; kind is a class of the list.
export function* changes(after, before) {
  if (after.state !== before.state) {
    yield [after.state === "ready" ? "good" : "warn", `Server is ${after.state}`];
  }
  for (const worker of after.workers) {
    const same = before.workers.find((each) => each.worker === worker.worker);
    yield* changesOfWorker(worker, same ?? { processes: [] });
  }
  for (const worker of before.workers) {
    const gone = !after.workers.some((each) => each.worker === worker.worker);
    if (gone) yield* changesOfWorker({ ...worker, processes: [] }, worker);
  }
  if (after.workers_wanted !== before.workers_wanted) yield ["", `There are to be ${after.workers_wanted} workers`];
  yield* changesOfReloads(after, before);
  const [now, then] = [conditions(after), conditions(before)].map((found) => found.filter((each) => each.lasting));
  for (const { kind, text, key } of now) {
    if (!then.some((each) => each.key === key)) yield [kind, text];
  }
  for (const { key, over } of then) {
    if (!now.some((each) => each.key === key)) yield ["good", over];
  }
}

// What needs attention: {key, kind, text}; lasting ones have a text for their end, too.
export function conditions(status) {
  const found = [];
  if (status.state === "draining") {
    found.push({ key: "draining", kind: "warn", text: "The server is stopping: sessions may finish, new ones are refused." });
  }
  const absent = missing(status);
  for (const worker of status.workers) {
    const name = `Worker ${worker.worker}`;
    if (absent.includes(worker) && status.state === "ready") {
      const coming = worker.processes.some((process) => process.state === "starting");
      const text = coming ? `${name} does not serve: its process is starting.` : `${name} does not serve: it has no process.`;
      found.push({ key: `${name} absent`, kind: "bad", text });
    }
    for (const process of worker.processes) {
      const who = `${name} (pid ${process.pid})`;
      if (process.stamp_age_seconds > HANGS) {
        const age = Math.floor(process.stamp_age_seconds);
        found.push({
          key: `${who} hangs`, kind: "bad", lasting: true,
          text: `${who} hangs: its event loop has not turned for ${age} s.`, over: `${who} turns again`,
        });
      }
      if (process.mail_refused) {
        found.push({
          key: `${who} full`, kind: "bad", lasting: true,
          text: `${who} refuses MAIL with 452: the store has no room.`, over: `${who} takes mail again`,
        });
      }
      if (process.stressed) {
        found.push({
          key: `${who} stressed`, kind: "warn", lasting: true,
          text: `${who} is under stress: connections are scarce.`, over: `${who}: stress is over`,
        });
      }
      if (process.overload) {
        found.push({
          key: `${who} overload ${process.overload}`, kind: process.overload > 1 ? "bad" : "warn", lasting: true,
          text: `${who} is overloaded: ${OVERLOAD[process.overload] ?? ""}.`,
          over: `${who}: overload ${process.overload} is over`,
        });
      }
    }
  }
  return found;
}
