// Line plots as SVG, drawn anew with each point: sizes are pixels, so that text and lines stay crisp at any width.

import { SPAN } from "./samples.js";

const LEFT = 46; // pixels for the labels of the vertical axis
const BOTTOM = 18;
const TOP = 6;
const STYLES = ["", "dashed", "dotted"];
const GAP = 6; // seconds without a point, from which on a line is not drawn through

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function html(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

// The next round number that holds a value; half of it is round, too.
export function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= wanted * 0.9999) * power;
}

// Seconds that the horizontal axis spans: it grows with what there is to show.
function span(points) {
  const known = points.length > 0 ? points.at(-1).time - points[0].time : 0;
  return Math.min(SPAN, Math.max(60, known));
}

const ago = (seconds) => (seconds < 120 ? `${Math.round(seconds)} s ago` : `${(seconds / 60).toFixed(1).replace(".0", "")} min ago`);

// Stretches of points that belong together: [x, y] each.
function stretches(points, valueOf, xOf, yOf) {
  const found = [];
  let time = -Infinity;
  for (const point of points) {
    const value = valueOf(point);
    if (value === null || value === undefined) continue;
    if (point.time - time > GAP) found.push([]);
    time = point.time;
    found.at(-1).push([xOf(point.time), yOf(value)]);
  }
  return found;
}

const path = (stretch) => stretch.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function area(stretch, floor) {
  return `${path(stretch)}L${stretch.at(-1)[0].toFixed(1)} ${floor}L${stretch[0][0].toFixed(1)} ${floor}Z`;
}

export class Plot {
  // names: of the series; least: what the vertical axis holds at least; format: of a value; key: of a point's values.
  constructor({ key, title, names, least, format }) {
    Object.assign(this, { key, title, names, least, format });
    this.points = [];
    this.hair = null; // the pointer's place
    this.legend = html("dl", "legend");
    this.values = names.map((name, index) => {
      const value = html("data", "", "–");
      this.legend.append(html("div", `series-${index} ${STYLES[index]}`, html("dt", "", name), html("dd", "", value)));
      return value;
    });
    this.canvas = svg("svg", { class: "canvas", role: "img" });
    this.element = html("article", "card plot", html("h2", "", title), this.legend, this.canvas);
    this.element.id = `plot-${key}`;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
  }

  show(points) {
    this.points = points;
    this.draw();
  }

  point(x) {
    this.hair = x;
    this.draw();
  }

  // The point that the legend shows: the pointer's, else the last one.
  chosen(xOf) {
    if (this.hair === null) return this.points.at(-1);
    const distance = (point) => Math.abs(xOf(point.time) - this.hair);
    return this.points.reduce((best, each) => (best === null || distance(each) < distance(best) ? each : best), null);
  }

  draw() {
    const { width, height } = this.canvas.getBoundingClientRect();
    if (width === 0) return;
    const floor = height - BOTTOM;
    const values = this.points.flatMap((point) => point[this.key]).filter((value) => value !== null);
    const top = ceiling(Math.max(0, ...values), this.least);
    const end = this.points.at(-1)?.time ?? 0;
    const seconds = span(this.points);
    const xOf = (time) => LEFT + (width - LEFT - 4) * (1 - (end - time) / seconds);
    const yOf = (value) => floor - (floor - TOP) * value / top;
    const chosen = this.chosen(xOf);
    this.canvas.replaceChildren(
      ...this.axes(width, floor, top, yOf, seconds),
      ...this.names.flatMap((_, index) => this.series(index, xOf, yOf, floor)).reverse(),
      ...(this.hair !== null && chosen ? this.marks(chosen, xOf(chosen.time), yOf, floor) : []),
    );
    this.tell(chosen, values, this.hair !== null);
  }

  axes(width, floor, top, yOf, seconds) {
    const levels = [0, top / 2, top].flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: width, y1: yOf(value), y2: yOf(value) }),
      svg("text", { class: "label", x: LEFT - 6, y: yOf(value) + 4, "text-anchor": "end" }, this.format(value)),
    ]);
    return [
      ...levels,
      svg("text", { class: "label", x: LEFT, y: floor + 14 }, ago(seconds)),
      svg("text", { class: "label", x: width, y: floor + 14, "text-anchor": "end" }, "now"),
    ];
  }

  series(index, xOf, yOf, floor) {
    if (index > 0 && !this.points.some((point) => point[this.key][index])) return []; // would hide the axis
    const found = stretches(this.points, (point) => point[this.key][index], xOf, yOf);
    return found.flatMap((stretch) => [
      svg("path", { class: `curve series-${index} ${STYLES[index]}`, d: path(stretch) }),
      ...(index === 0 ? [svg("path", { class: "area series-0", d: area(stretch, floor) })] : []),
      ...(stretch.length === 1 ? [svg("circle", { class: `dot series-${index}`, cx: stretch[0][0], cy: stretch[0][1], r: 1.6 })] : []),
    ]);
  }

  marks(point, x, yOf, floor) {
    const dots = point[this.key].flatMap((value, index) =>
      value === null ? [] : [svg("circle", { class: `dot series-${index}`, cx: x, cy: yOf(value), r: 3 })]);
    return [svg("line", { class: "hair", x1: x, x2: x, y1: TOP, y2: floor }), ...dots];
  }

  // In words, for who does not see the lines.
  tell(point, values, past) {
    this.legend.classList.toggle("then", past);
    const said = this.names.map((name, index) => {
      const value = point?.[this.key][index] ?? null;
      this.values[index].value = value === null ? "" : String(value);
      this.values[index].textContent = value === null ? "–" : this.format(value);
      return `${name} ${value === null ? "none" : this.format(value)}`;
    });
    const most = values.length > 0 ? `; highest in the last five minutes ${this.format(Math.max(...values))}` : "";
    this.canvas.setAttribute("aria-label", `${this.title}: ${said.join(", ")}${most}`);
  }
}

// A small line without axes; values in 0 to top.
export function spark(points, valueOf, top, label) {
  const [width, height] = [120, 26];
  const end = points.at(-1)?.time ?? 0;
  const seconds = span(points);
  const xOf = (time) => width * (1 - (end - time) / seconds);
  const yOf = (value) => height - 1 - (height - 3) * Math.min(1, value / top);
  const lines = stretches(points, valueOf, xOf, yOf).flatMap((stretch) => [
    svg("path", { class: "area", d: area(stretch, height) }),
    svg("path", { class: "curve", d: path(stretch), "vector-effect": "non-scaling-stroke" }),
  ]);
  return svg("svg", {
    class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
  }, svg("line", { class: "floor", x1: 0, x2: width, y1: height, y2: height }), ...lines);
}
