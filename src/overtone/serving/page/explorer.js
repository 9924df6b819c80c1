// The explorer: published rows and runs as points, accuracy against cost.

import { frame, rangeOf, whenWide } from "./chart.js";
import { copyButton, filled, html, magnitude, select, svg } from "./dom.js";

/**
 * @typedef {object} Point
 * @property {string} name
 * @property {string} family
 * @property {"published" | "run"} kind
 * @property {string} benchmark
 * @property {number} score percent
 * @property {number | null} multiply_adds
 * @property {number | null} parameters
 * @property {number | null} resolution
 * @property {string} command
 * @property {string[]} notes
 * @property {Record<string, number>} latency milliseconds by series
 */

const COSTS = { multiply_adds: "multiply-adds of one image", parameters: "parameters" };
const milliseconds = (/** @type {number} */ value) => `${Number(value.toPrecision(3))} ms`;

/** The points that no other one beats: none is as cheap and better, or cheaper and as good. @param {{x: number, point: Point}[]} placed */
export function paretoFront(placed) {
  let best = -Infinity;
  const ordered = [...placed].sort((a, b) => a.x - b.x || b.point.score - a.point.score);
  return ordered.filter(({ point }) => point.score > best && ((best = point.score), true));
}

/** Put the explorer into an element. @param {HTMLElement} place @param {{points: Point[]}} data */
export function showExplorer(place, { points }) {
  const unique = (/** @type {string[]} */ values) => [...new Set(values)];
  const benchmarks = unique(points.map((point) => point.benchmark));
  const families = unique(points.map((point) => point.family)).sort();
  const series = unique(points.flatMap((point) => Object.keys(point.latency))).sort();
  const state = {
    benchmark: benchmarks[0],
    cost: "multiply_adds",
    hidden: new Set(),
    front: true,
    chosen: /** @type {Point | null} */ (null),
  };
  const costOf = (/** @type {Point} */ point) =>
    state.cost in COSTS ? point[/** @type {"parameters"} */ (state.cost)] : (point.latency[state.cost] ?? null);
  const chart = html("div", { class: "plot" });
  const tip = html("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const stage = html("div", { class: "stage" }, chart, tip);
  const details = html("section", { class: "card details", "aria-live": "polite" });
  const missing = html("p", { class: "hint" });
  const rows = html("tbody");
  let width = 0;

  const draw = () => {
    const wanted = points.filter((point) => point.benchmark === state.benchmark && !state.hidden.has(point.family));
    const placed = wanted.flatMap((point) => {
      const x = costOf(point);
      return x === null ? [] : [{ x, point }];
    });
    placed.sort((a, b) => a.x - b.x);
    missing.textContent = placed.length
      ? `${placed.length} of ${wanted.length} networks have both figures.`
      : "No network has both figures: show more families, or another cost.";
    rows.replaceChildren(...placed.map(({ point }) => row(point)));
    chart.replaceChildren(...(placed.length && width ? [diagram(placed)] : []));
    tip.hidden = true;
  };

  const diagram = (/** @type {{x: number, point: Point}[]} */ placed) => {
    const isLatency = !(state.cost in COSTS);
    const across = {
      ...rangeOf(
        placed.map(({ x }) => x),
        true,
      ),
      name: isLatency ? `latency: ${state.cost}` : COSTS[/** @type {"parameters"} */ (state.cost)],
      text: isLatency ? milliseconds : magnitude,
    };
    const up = {
      ...rangeOf(placed.map(({ point }) => point.score)),
      name: `${state.benchmark}, percent`,
      text: String,
    };
    const drawn = frame(
      width,
      Math.round(Math.min(520, Math.max(300, width * 0.56))),
      across,
      up,
      `${up.name}, against ${across.name}`,
    );
    const front = state.front ? paretoFront(placed) : [];
    if (front.length > 1)
      drawn.root.append(
        svg("polyline", {
          class: "front",
          points: front.map(({ x, point }) => `${drawn.x(x)},${drawn.y(point.score)}`).join(" "),
        }),
      );
    const marks = placed.map(({ x, point }, index) => {
      const [left, top] = [drawn.x(x), drawn.y(point.score)];
      const mark = symbol(point, left, top, families.indexOf(point.family));
      mark.setAttribute("tabindex", index ? "-1" : "0");
      const show = () => showTip(point, left, top);
      for (const [event, listener] of Object.entries({
        pointerenter: show,
        focus: show,
        pointerleave: hideTip,
        blur: hideTip,
        click: () => choose(point),
        keydown: (/** @type {KeyboardEvent} */ event) => walk(event, marks, index, point),
      }))
        mark.addEventListener(event, /** @type {EventListener} */ (listener));
      return mark;
    });
    drawn.root.append(...names(front, drawn), ...marks);
    return drawn.root;
  };

  const symbol = (
    /** @type {Point} */ point,
    /** @type {number} */ x,
    /** @type {number} */ y,
    /** @type {number} */ family,
  ) => {
    const properties = {
      class: `mark family-${family % 6}${state.chosen === point ? " chosen" : ""}`,
      role: "button",
      "aria-label": `${point.name}, ${point.score.toFixed(2)} percent, ${costText(costOf(point))}`,
      "data-name": point.name,
    };
    return point.kind === "run"
      ? svg("path", { ...properties, d: `M${x} ${y - 7}L${x + 7} ${y}L${x} ${y + 7}L${x - 7} ${y}Z` })
      : svg("circle", { ...properties, cx: x, cy: y, r: 5.5 });
  };

  const costText = (/** @type {number | null} */ value) =>
    value === null
      ? "–"
      : state.cost in COSTS
        ? `${magnitude(value)} ${COSTS[/** @type {"parameters"} */ (state.cost)]}`
        : milliseconds(value);

  const walk = (
    /** @type {KeyboardEvent} */ event,
    /** @type {SVGElement[]} */ marks,
    /** @type {number} */ index,
    /** @type {Point} */ point,
  ) => {
    const next = {
      ArrowRight: index + 1,
      ArrowUp: index + 1,
      ArrowLeft: index - 1,
      ArrowDown: index - 1,
      Home: 0,
      End: marks.length - 1,
    }[event.key];
    if (event.key === "Enter" || event.key === " ") choose(point);
    else if (next === undefined) return;
    else if (marks[next]) {
      marks[index].setAttribute("tabindex", "-1");
      marks[next].setAttribute("tabindex", "0");
      marks[next].focus();
    }
    event.preventDefault();
  };

  const showTip = (/** @type {Point} */ point, /** @type {number} */ left, /** @type {number} */ top) => {
    tip.replaceChildren(
      html("strong", {}, point.name),
      html("span", {}, `${point.score.toFixed(2)} %`),
      html("span", {}, costText(costOf(point))),
    );
    tip.hidden = false;
    const half = tip.offsetWidth / 2;
    tip.style.left = `${Math.min(Math.max(left, half), width - half)}px`;
    tip.style.top = `${top}px`;
    tip.classList.toggle("below", top < 84);
  };
  const hideTip = () => {
    tip.hidden = true;
  };

  const choose = (/** @type {Point} */ point) => {
    state.chosen = point;
    for (const mark of chart.querySelectorAll(".mark"))
      mark.classList.toggle("chosen", mark.getAttribute("data-name") === point.name);
    const figure = (/** @type {string} */ name, /** @type {string} */ value) =>
      html("div", {}, html("dt", {}, name), html("dd", {}, value));
    filled(
      details,
      html("h3", {}, point.name),
      html(
        "dl",
        { class: "figures" },
        figure(point.benchmark, `${point.score.toFixed(2)} %`),
        figure("Multiply-adds", magnitude(point.multiply_adds)),
        figure("Parameters", magnitude(point.parameters)),
        figure("Input", point.resolution ? `${point.resolution} px` : "–"),
        Object.entries(point.latency).map(([name, value]) => figure(name, milliseconds(value))),
      ),
      point.notes.length ? html("p", { class: "hint" }, point.notes.join("; ")) : null,
      html(
        "div",
        { class: "command" },
        html("code", {}, point.command),
        copyButton(() => point.command),
      ),
    );
  };

  const row = (/** @type {Point} */ point) =>
    html(
      "tr",
      {},
      html(
        "th",
        { scope: "row" },
        html("button", { type: "button", class: "link", onclick: () => choose(point) }, point.name),
      ),
      html("td", {}, point.score.toFixed(2)),
      html("td", {}, magnitude(point.multiply_adds)),
      html("td", {}, magnitude(point.parameters)),
      html("td", {}, state.cost in COSTS ? "–" : costText(costOf(point))),
    );

  const costs = /** @type {[string, string][]} */ ([
    ["multiply_adds", "Multiply-adds"],
    ["parameters", "Parameters"],
    ...series.map((name) => [name, `Latency: ${name}`]),
  ]);
  const toggle = (
    /** @type {string} */ name,
    /** @type {string} */ swatch,
    /** @type {boolean} */ checked,
    /** @type {(on: boolean) => void} */ changed,
  ) => {
    const box = html("input", {
      type: "checkbox",
      checked,
      onchange: () => {
        changed(box.checked);
        draw();
      },
    });
    return html("label", { class: "toggle" }, box, swatch ? html("span", { class: `swatch ${swatch}` }) : null, name);
  };
  details.append(
    html(
      "p",
      { class: "hint" },
      "Choose a point for its figures and its command line. Circles are published networks, diamonds are your runs.",
    ),
  );
  place.classList.add("stack");
  place.replaceChildren(
    html(
      "div",
      { class: "controls" },
      select(
        "Score",
        benchmarks.map((name) => [name, name]),
        (value) => {
          state.benchmark = value;
          draw();
        },
      ).field,
      select("Against", costs, (value) => {
        state.cost = value;
        draw();
      }).field,
    ),
    html(
      "fieldset",
      { class: "filters" },
      html("legend", { class: "unseen" }, "Families"),
      families.map((name, index) =>
        toggle(name, `family-${index % 6}`, true, (on) => {
          on ? state.hidden.delete(name) : state.hidden.add(name);
        }),
      ),
      toggle("Pareto front", "line", true, (on) => {
        state.front = on;
      }),
    ),
    stage,
    missing,
    details,
    html(
      "details",
      {},
      html("summary", {}, "As a table"),
      html(
        "div",
        { class: "scroll" },
        html(
          "table",
          {},
          html(
            "thead",
            {},
            html(
              "tr",
              {},
              ["Network", "Score, %", "Multiply-adds", "Parameters", "Latency"].map((name) =>
                html("th", { scope: "col" }, name),
              ),
            ),
          ),
          rows,
        ),
      ),
    ),
  );
  whenWide(stage, (now) => {
    width = now;
    draw();
  });
}

/** Names of the points of the front that have room. @param {{x: number, point: Point}[]} front @param {ReturnType<typeof frame>} drawn */
function names(front, drawn) {
  /** @type {{left: number, right: number, top: number}[]} */
  const taken = [];
  return front.flatMap(({ x, point }) => {
    const text = point.name.split(".")[0] + (/_r\d+$/.test(point.name) ? ` at ${point.resolution}` : "");
    const [at, wide] = [drawn.x(x), text.length * 6.2];
    const toLeft = at - 9 - wide >= drawn.area.left;
    const top = drawn.y(point.score) + (toLeft ? -8 : 16); // a front climbs to the right
    const box = { left: toLeft ? at - 9 - wide : at + 9, right: toLeft ? at - 9 : at + 9 + wide, top };
    if (
      box.right > drawn.area.right ||
      taken.some((other) => box.left < other.right && other.left < box.right && Math.abs(other.top - top) < 14)
    )
      return [];
    taken.push(box);
    return [svg("text", { class: "label", x: box.left, y: top }, text)];
  });
}
