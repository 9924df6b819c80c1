// Axes of a diagram in SVG: scales, ticks, grid lines and names.

import { svg } from "./dom.js";

/**
 * @typedef {object} Scale
 * @property {(value: number) => number} at position of a value, pixels
 * @property {number[]} ticks
 * @typedef {object} Axis
 * @property {number} min
 * @property {number} max
 * @property {boolean} [log]
 * @property {string} name
 * @property {(value: number) => string} text
 */

/** Round values between two others. @param {number} min @param {number} max @param {number} most how many, about */
export function linearTicks(min, max, most) {
  const rough = (max - min) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  const ticks = [];
  for (let index = Math.ceil(min / step); index * step <= max + step * 1e-9; index++)
    ticks.push(Number((index * step).toPrecision(12)));
  return ticks;
}

/** Values 1, 2, 5 times powers of ten, or powers alone where these are too many, or evenly spaced ones within a power. @param {number} min @param {number} max @param {number} most */
export function logTicks(min, max, most) {
  const all = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.log10(max); power++) {
    for (const factor of [1, 2, 5]) all.push({ value: factor * 10 ** power, factor });
  }
  const inside = all.filter(({ value }) => value >= min && value <= max);
  const powers = inside.filter(({ factor }) => factor === 1);
  if (inside.length < 2) return linearTicks(min, max, Math.min(most, 6));
  return (inside.length <= most || powers.length < 2 ? inside : powers).map(({ value }) => value);
}

/** @param {Axis} axis @param {number} from pixels @param {number} to pixels @returns {Scale} */
export function scaleOf(axis, from, to) {
  const turned = axis.log ? Math.log10 : (/** @type {number} */ value) => value;
  const [low, high] = [turned(axis.min), turned(axis.max)];
  const most = Math.max(2, Math.round(Math.abs(to - from) / (axis.log ? 62 : 40)));
  const ticks = (axis.log ? logTicks : linearTicks)(axis.min, axis.max, most);
  return { at: (value) => from + ((turned(value) - low) / (high - low || 1)) * (to - from), ticks };
}

/** The range of values with a margin on both sides. @param {number[]} values @param {boolean} [log] @param {number} [margin] share */
export function rangeOf(values, log = false, margin = 0.06) {
  const turned = values.map((value) => (log ? Math.log10(value) : value));
  const [low, high] = [Math.min(...turned), Math.max(...turned)];
  const more = (high - low || Math.abs(high) * 0.1 || 1) * margin;
  return log ? { min: 10 ** (low - more), max: 10 ** (high + more), log } : { min: low - more, max: high + more, log };
}

/**
 * A frame to draw in: axes with ticks, grid lines and names.
 * @param {number} width @param {number} height @param {Axis} x @param {Axis} y @param {string} title for screen readers
 */
export function frame(width, height, x, y, title) {
  const [left, right, top, bottom] = [46, 10, 26, 42];
  const [across, down] = [scaleOf(x, left, width - right), scaleOf(y, height - bottom, top)];
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: "group",
    "aria-label": title,
    class: "chart",
  });
  for (const tick of down.ticks) {
    root.append(
      svg("line", { class: "grid", x1: left, x2: width - right, y1: down.at(tick), y2: down.at(tick) }),
      svg("text", { class: "tick", x: left - 8, y: down.at(tick), "text-anchor": "end", dy: "0.32em" }, y.text(tick)),
    );
  }
  for (const tick of across.ticks) {
    root.append(
      svg("line", {
        class: "notch",
        x1: across.at(tick),
        x2: across.at(tick),
        y1: height - bottom,
        y2: height - bottom + 5,
      }),
      svg(
        "text",
        { class: "tick", x: across.at(tick), y: height - bottom + 18, "text-anchor": "middle" },
        x.text(tick),
      ),
    );
  }
  root.append(
    svg("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    svg("text", { class: "name", x: 0, y: 12 }, y.name),
    svg("text", { class: "name", x: width - right, y: height - 4, "text-anchor": "end" }, x.name),
  );
  return { root, x: across.at, y: down.at, area: { left, right: width - right, top, bottom: height - bottom } };
}

/** Draw now and whenever the width changes. @param {Element} place @param {(width: number) => void} draw */
export function whenWide(place, draw) {
  let width = 0;
  const look = () => {
    const now = Math.floor(place.clientWidth);
    if (now > 0 && now !== width) {
      width = now;
      draw(width);
    }
  };
  new ResizeObserver(look).observe(place);
  look();
}
