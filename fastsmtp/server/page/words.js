// Numbers as people read them.

function digits(value) {
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 10 || size === 0 ? 0 : size >= 1 ? 1 : 2).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

function scaled(value, units) {
  if (value === 0) return "0";
  const [unit, size] = units.find(([, least]) => Math.abs(value) >= least) ?? units.at(-1);
  return `${digits(value / size)} ${unit}`.trim();
}

export const amount = (value) => scaled(value, [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1]]).replace(/ (?=[kMG]$)/, "");
export const rate = (value) => (Math.abs(value) >= 1e4 ? amount(value) : digits(value));
export const octets = (value) => scaled(value, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]]);
export const memory = (value) => scaled(value, [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10], ["B", 1]]);
export const seconds = (value) => scaled(value, [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]);
export const percent = (value) => `${digits(value * 100)} %`;
export const whole = (value) => value.toLocaleString("en");

export function duration(total) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => total >= size);
  if (first < 0) return "0 s";
  let rest = total;
  return parts.slice(first, first + 2).map(([unit, size]) => {
    const count = Math.floor(rest / size);
    rest -= count * size;
    return `${count} ${unit}`;
  }).join(" ");
}
