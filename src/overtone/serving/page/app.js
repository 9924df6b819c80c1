// Which page is shown; each one is built when it is first looked at.

import { json } from "./api.js";
import { filled, html } from "./dom.js";
import { showExplorer } from "./explorer.js";
import { showPredict } from "./predict.js";
import { showRuns } from "./runs.js";

/** @type {Record<string, (place: HTMLElement) => Promise<void> | void>} */
const PAGES = {
  predict: showPredict,
  explorer: async (place) => showExplorer(place, await json("v1/explorer")),
  runs: showRuns,
};
const built = new Set();

async function show() {
  const name = location.hash.slice(1) in PAGES ? location.hash.slice(1) : "predict";
  for (const section of document.querySelectorAll("section[data-page]"))
    section.toggleAttribute("hidden", section.getAttribute("data-page") !== name);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (built.has(name)) return;
  built.add(name);
  const place = /** @type {HTMLElement} */ (document.getElementById(`page-${name}`));
  try {
    await PAGES[name](place);
  } catch (error) {
    built.delete(name);
    filled(place, html("p", { class: "error", role: "alert" }, /** @type {Error} */ (error).message));
  }
}

addEventListener("hashchange", show);
show();
