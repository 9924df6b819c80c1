// Curves of runs by epoch: one diagram for each figure, a colour for each run.

import { frame, rangeOf, whenWide } from "./chart.js";
import { filled, html, select, svg } from "./dom.js";

const HIDDEN = new Set(["epoch", "step", "is_best", "score_name"]);
const FIRST = ["score", "train_loss", "val_loss"];

/**
 * @typedef {{name: string, rows: Record<string, any>[]}} Run
 * @param {HTMLElement} place
 * @returns {(runs: Run[]) => void} draws other runs
 */
export function curvesIn(place) {
  let runs = /** @type {Run[]} */ ([]);
  const wide = { width: 0 };
  const chosen = ["score", "train_loss"];
  const panels = chosen.map((_, at) =>
    html("div", { class: "panel" }, html("div", { class: "pick" }), html("div", { class: "plot curves" })),
  );
  const fill = () =>
    panels.forEach((panel, at) => {
      const [pick, plot] = panel.children;
      const names = figures(runs);
      if (!names.includes(chosen[at]) && names.length) chosen[at] = names[Math.min(at, names.length - 1)];
      const shown = select(
        at ? "Second figure" : "First figure",
        names.map((name) => [name, name.replaceAll("_", " ")]),
        (value) => {
          chosen[at] = value;
          draw(at);
        },
      );
      shown.list.value = chosen[at];
      if (pick.getAttribute("data-names") !== names.join()) {
        pick.setAttribute("data-names", names.join());
        filled(pick, shown.field);
      }
      plot.toggleAttribute("hidden", !names.length);
      draw(at);
    });
  const draw = (/** @type {number} */ at) => {
    const plot = panels[at].children[1];
    if (wide.width) filled(plot, diagram(runs, chosen[at], Math.floor(plot.clientWidth || wide.width)));
  };
  filled(place, html("div", { class: "pair" }, panels));
  whenWide(place, (width) => {
    wide.width = width;
    fill();
  });
  return (now) => {
    runs = now;
    fill();
  };
}

/** Names of the numbers of the epochs, the usual ones first. @param {Run[]} runs */
function figures(runs) {
  const names = new Set(
    runs.flatMap(({ rows }) =>
      rows.flatMap((row) => Object.keys(row).filter((name) => !HIDDEN.has(name) && typeof row[name] === "number")),
    ),
  );
  return [...FIRST.filter((name) => names.has(name)), ...[...names].filter((name) => !FIRST.includes(name))];
}

/** @param {Run[]} runs @param {string} figure @param {number} width */
function diagram(runs, figure, width) {
  const series = runs.map(({ rows }) => rows.filter((row) => typeof row[figure] === "number"));
  const all = series.flat();
  if (!all.length) return null;
  const epochs = Math.max(...all.map((row) => row.epoch));
  const x = {
    min: Math.min(1, epochs),
    max: Math.max(epochs, 2),
    name: "epoch",
    text: (/** @type {number} */ value) => (Number.isInteger(value) ? String(value) : ""),
  };
  const y = {
    ...rangeOf(all.map((row) => row[figure])),
    name: figure.replaceAll("_", " "),
    text: (/** @type {number} */ value) =>
      Math.abs(value) >= 1e4 ? value.toExponential(0) : String(Number(value.toPrecision(4))),
  };
  const drawn = frame(width, 260, x, y, `${y.name} by epoch`);
  series.forEach((rows, at) => {
    if (!rows.length) return;
    const last = rows[rows.length - 1];
    drawn.root.append(
      svg("polyline", {
        class: `curve family-${at % 6}`,
        points: rows.map((row) => `${drawn.x(row.epoch)},${drawn.y(row[figure])}`).join(" "),
      }),
      svg(
        "circle",
        {
          class: `end family-${at % 6}`,
          cx: drawn.x(last.epoch),
          cy: drawn.y(last[figure]),
          r: 3,
          fill: "currentColor",
        },
        svg("title", {}, `${runs[at].name}: ${last[figure]}`),
      ),
    );
  });
  return drawn.root;
}
