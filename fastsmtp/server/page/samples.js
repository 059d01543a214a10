// What two looks at /status tell: rates, and the quantiles of what was counted in between.
//
// Times are those of the server's own clock (clock_seconds), so a slow answer or a sleeping tab bends no rate.

export const SPAN = 300; // seconds that are remembered

// The value below which the share q of what lies in the buckets is; linear within a bucket, as Prometheus does it.
export function quantile(bounds, buckets, q) {
  const count = buckets.reduce((sum, each) => sum + each, 0);
  if (count === 0) return null;
  let below = 0;
  for (let index = 0; index < bounds.length; index++) {
    const within = buckets[index];
    if (within > 0 && below + within >= q * count) {
      const lower = index === 0 ? 0 : bounds[index - 1];
      return lower + (bounds[index] - lower) * (q * count - below) / within;
    }
    below += within;
  }
  return bounds[bounds.length - 1]; // at least that
}

export function difference(after, before) {
  return Math.max(0, after - (before ?? 0));
}

function sum(numbers) {
  return Object.values(numbers).reduce((total, each) => total + each, 0);
}

function quantiles(name, before, after) {
  const now = after.totals[name];
  const then = before.totals[name];
  const buckets = now.buckets.map((each, index) => each - then.buckets[index]);
  return [0.5, 0.95, 0.99].map((q) => quantile(now.bounds, buckets, q));
}

function processes(status) {
  return status.workers.flatMap((worker) => worker.processes);
}

// One point of every plot, from two answers of /status.
export function measure(before, after) {
  const seconds = after.clock_seconds - before.clock_seconds;
  const now = after.totals;
  const then = before.totals;
  const rate = (later, earlier) => difference(later, earlier) / seconds;
  const cpu = after.workers.map((worker, index) =>
    rate(worker.totals.cpu_seconds, before.workers[index]?.totals.cpu_seconds));
  return {
    time: after.clock_seconds,
    messages: [rate(now.messages.accepted, then.messages.accepted), rate(now.messages.refused, then.messages.refused)],
    octets: [rate(now.message_bytes, then.message_bytes)],
    latency: quantiles("message_seconds", before, after),
    store: quantiles("store_seconds", before, after),
    hooks: quantiles("hook_seconds", before, after),
    sessions: [sum(processes(after).map((process) => process.open_connections))],
    connections: [
      rate(now.connections, then.connections),
      rate(sum(now.refused_connections), sum(then.refused_connections)),
    ],
    accepts: after.workers.map((worker, index) =>
      rate(worker.totals.connections, before.workers[index]?.totals.connections)),
    lag: [Math.max(0, ...processes(after).map((process) => process.loop_lag_seconds))],
    cpu,
    processor: [cpu.reduce((total, each) => total + each, 0)],
  };
}

// Points of the last SPAN seconds, and the answer of /status that is as old.
export class History {
  constructor() {
    this.points = [];
    this.statuses = [];
  }

  get last() {
    return this.statuses.at(-1);
  }

  get first() {
    return this.statuses[0];
  }

  // Takes an answer; returns whether it is of another server than the one before.
  add(status) {
    const last = this.last;
    const restarted = last !== undefined && (last.pid !== status.pid || last.started !== status.started);
    if (restarted) {
      this.points = [];
      this.statuses = [];
    } else if (last !== undefined && status.clock_seconds > last.clock_seconds) {
      this.points.push(measure(last, status));
    }
    this.statuses.push(status);
    const oldest = status.clock_seconds - SPAN;
    while (this.points.length > 0 && this.points[0].time < oldest) this.points.shift();
    while (this.statuses.length > 1 && this.statuses[0].clock_seconds < oldest) this.statuses.shift();
    return restarted;
  }

  // What was counted under labels within the span: [label, in the span, since the start], most first.
  counted(name) {
    const now = this.last.totals[name];
    const then = this.first.totals[name];
    return Object.entries(now)
      .filter(([, total]) => total > 0)
      .map(([label, total]) => [label, difference(total, then[label]), total])
      .sort((one, other) => other[1] - one[1] || other[2] - one[2]);
  }
}
