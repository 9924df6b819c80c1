// Runs below the server's folder: curves that grow while a run trains, differences, confusion matrices.

import { events, json } from "./api.js";
import { showConfusion } from "./confusion.js";
import { curvesIn } from "./curves.js";
import { filled, html } from "./dom.js";

const MOST = 6; // runs side by side
/** @typedef {{name: string, state: string, recipe: string | null, model: string | null, best_score: number | null, score_name: string | null, epoch: number, epochs: number | null}} Overview */

/** @param {HTMLElement} place */
export async function showRuns(place) {
  const first = await json("v1/runs");
  if (!first.folder) {
    filled(
      place,
      html(
        "p",
        { class: "hint" },
        "No folder of runs was given. Start the server with ",
        html("code", {}, "--runs runs"),
        " to see them here.",
      ),
    );
    return;
  }
  let chosen = /** @type {string[]} */ ([]);
  let asked = 0;
  const rows = html("tbody");
  const curves = html("div", {});
  const draw = curvesIn(curves);
  const comparison = html("div", { class: "scroll" });
  const confusion = html("div", {});
  const empty = html("p", { class: "hint" });

  const load = async () => {
    const number = ++asked;
    const names = [...chosen];
    const found = names.length
      ? await json(`v1/runs-compared?${new URLSearchParams(names.map((name) => ["run", name]))}`).catch((error) => ({
          error,
        }))
      : { runs: [], differences: {} };
    if (number !== asked) return;
    empty.textContent = found.error
      ? found.error.message
      : names.length
        ? ""
        : "Choose runs to see their curves, side by side.";
    draw(found.runs ?? []);
    filled(comparison, found.runs?.length ? compared(found) : null);
  };
  const choose = (/** @type {string} */ name, /** @type {boolean} */ on) => {
    chosen = on ? [...chosen.filter((one) => one !== name), name].slice(-MOST) : chosen.filter((one) => one !== name);
    for (const row of rows.children) mark(row);
    const last = chosen.at(-1);
    if (last) showConfusion(confusion, last);
    else confusion.replaceChildren();
    return load();
  };
  const mark = (/** @type {Element} */ row) => {
    const at = chosen.indexOf(row.getAttribute("data-name") ?? "");
    /** @type {HTMLInputElement} */ (row.querySelector("input")).checked = at >= 0;
    /** @type {Element} */ (row.querySelector(".swatch")).setAttribute(
      "class",
      at >= 0 ? `swatch family-${at}` : "swatch none",
    );
  };
  const list = (/** @type {Overview[]} */ runs) => {
    const focused = document.activeElement?.closest("tr")?.getAttribute("data-name");
    filled(
      rows,
      runs.map((run) => runRow(run, choose)),
    );
    for (const row of rows.children) {
      mark(row);
      if (focused && row.getAttribute("data-name") === focused) row.querySelector("input")?.focus();
    }
    if (!runs.length) filled(rows, html("tr", {}, html("td", { colspan: 5 }, "There are no runs yet.")));
  };

  filled(
    place,
    html(
      "div",
      { class: "stack" },
      html(
        "div",
        { class: "scroll" },
        html(
          "table",
          { class: "runs" },
          html(
            "thead",
            {},
            html(
              "tr",
              {},
              ["Run", "State", "Model", "Best score", "Epochs"].map((name) => html("th", { scope: "col" }, name)),
            ),
          ),
          rows,
        ),
      ),
      empty,
      curves,
      comparison,
      confusion,
    ),
  );
  list(first.runs);
  if (first.runs.length)
    await choose(
      /** @type {Overview[]} */ (first.runs).find((run) => run.state === "running")?.name ?? first.runs[0].name,
      true,
    );
  events(
    "v1/runs-events",
    (_, { runs, changed }) => {
      list(runs);
      if (changed.some((/** @type {string} */ name) => chosen.includes(name))) load();
      if (changed.includes(chosen.at(-1))) showConfusion(confusion, /** @type {string} */ (chosen.at(-1)));
    },
    new AbortController().signal,
  );
}

/** @param {Overview} run @param {(name: string, on: boolean) => void} choose */
function runRow(run, choose) {
  const box = html("input", { type: "checkbox", onchange: () => choose(run.name, box.checked) });
  const score = run.best_score === null ? "–" : `${run.best_score.toFixed(2)} ${run.score_name}`;
  return html(
    "tr",
    { "data-name": run.name },
    html(
      "th",
      { scope: "row" },
      html("label", { class: "toggle" }, box, html("span", { class: "swatch none" }), run.name),
    ),
    html("td", {}, html("span", { class: `state ${run.state}` }, run.state)),
    html("td", {}, run.model ?? "–"),
    html("td", {}, score),
    html("td", {}, `${run.epoch}/${run.epochs ?? "?"}`),
  );
}

/** Settings that differ, and results. @param {{runs: any[], differences: Record<string, any[]>}} found */
function compared({ runs, differences }) {
  const cell = (/** @type {any} */ value) =>
    typeof value === "number" ? String(Number(value.toPrecision(6))) : (value ?? "–");
  const results = Object.keys(runs[0].result).filter((name) => !["score_name", "state"].includes(name));
  const row = (/** @type {string} */ name, /** @type {any[]} */ values) =>
    html(
      "tr",
      {},
      html("th", { scope: "row" }, name),
      values.map((value) => html("td", {}, String(cell(value)))),
    );
  const head = (/** @type {string} */ title) =>
    html(
      "thead",
      {},
      html(
        "tr",
        {},
        html("th", { scope: "col" }, title),
        runs.map((run, at) =>
          html("th", { scope: "col" }, html("span", { class: `swatch family-${at % 6}` }), ` ${run.name}`),
        ),
      ),
    );
  const table = html(
    "table",
    {},
    head("Results"),
    html(
      "tbody",
      {},
      results.map((name) =>
        row(
          name.replaceAll("_", " "),
          runs.map((run) => run.result[name]),
        ),
      ),
    ),
  );
  const settings = Object.entries(differences);
  return [
    table,
    settings.length
      ? html(
          "details",
          {},
          html("summary", {}, `${settings.length} settings differ`),
          html(
            "table",
            {},
            head(""),
            html(
              "tbody",
              {},
              settings.map(([name, values]) => row(name, values)),
            ),
          ),
        )
      : null,
  ];
}
