// The confusion matrix of a run, and the images behind its cells, worst mistakes first.

import { imageAddress, json } from "./api.js";
import { filled, html, percent } from "./dom.js";

const MOST = 48; // images shown at a time

/** @param {HTMLElement} place @param {string} name of the run */
export async function showConfusion(place, name) {
  const run = name.split("/").map(encodeURIComponent).join("/");
  let found;
  try {
    found = await json(`v1/runs/${run}/confusion`);
  } catch (error) {
    filled(place, html("p", { class: "hint" }, /** @type {Error} */ (error).message));
    return;
  }
  const images = html("div", { class: "behind", "aria-live": "polite" });
  const show = (/** @type {string} */ title, /** @type {any[]} */ samples) =>
    filled(
      images,
      html("h3", {}, `${title}: ${samples.length} ${samples.length === 1 ? "image" : "images"}`),
      html(
        "ul",
        { class: "thumbs" },
        samples.slice(0, MOST).map((sample) => thumbnail(run, sample)),
      ),
    );
  filled(
    place,
    html(
      "section",
      { class: "card" },
      html("h3", {}, `Confusion matrix of ${name}`),
      html(
        "div",
        { class: "scroll" },
        matrix(found, (target, predicted) =>
          show(
            target === predicted ? `${target}, recognised` : `${target} taken for ${predicted}`,
            found.samples.filter((/** @type {any} */ one) => one.target === target && one.predicted === predicted),
          ),
        ),
      ),
      found.samples.length
        ? images
        : html(
            "p",
            { class: "hint" },
            "The images behind the cells are known after ",
            html("code", {}, `overtone evaluate RUN DATA --out RUN/evaluation`),
            ".",
          ),
    ),
  );
  if (found.samples.length)
    show(
      "Mistakes, the most confident first",
      found.samples.filter((/** @type {any} */ one) => one.target !== one.predicted),
    );
}

/** @param {{classes: string[], counts: number[][], num_classes: number, samples: any[]}} found @param {(target: string, predicted: string) => void} chosen */
function matrix({ classes, counts, num_classes, samples }, chosen) {
  const cell = (/** @type {number} */ count, /** @type {number} */ row, /** @type {number} */ column) => {
    const total = counts[row].reduce((sum, one) => sum + one, 0) || 1;
    const name = `${count} of ${classes[row]} taken for ${classes[column]}`;
    const inner =
      samples.length && count
        ? html(
            "button",
            { type: "button", "aria-label": name, onclick: () => chosen(classes[row], classes[column]) },
            count,
          )
        : html("span", {}, count || "");
    const place = html("td", { class: row === column ? "right" : "wrong", title: name }, inner);
    place.style.setProperty("--share", String(Math.round(100 * Math.sqrt(count / total))));
    return place;
  };
  return html(
    "table",
    { class: "matrix" },
    html(
      "caption",
      { class: "hint" },
      `Rows: true class. Columns: predicted class.${num_classes > classes.length ? ` The ${classes.length} of ${num_classes} classes with the most mistakes.` : ""}`,
    ),
    html(
      "thead",
      {},
      html(
        "tr",
        {},
        html("td"),
        classes.map((name) => html("th", { scope: "col" }, html("span", {}, name))),
      ),
    ),
    html(
      "tbody",
      {},
      classes.map((name, row) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, name),
          counts[row].map((count, column) => cell(count, row, column)),
        ),
      ),
    ),
  );
}

/** @param {string} run @param {any} sample */
function thumbnail(run, sample) {
  const image = html("img", {
    alt: `${sample.name}: ${sample.target}, taken for ${sample.predicted}`,
    width: 96,
    height: 96,
  });
  if (sample.has_file)
    imageAddress(`v1/runs/${run}/images/${sample.index}`).then(
      (address) => {
        image.src = address;
      },
      () => image.classList.add("gone"),
    );
  else image.classList.add("gone");
  return html(
    "li",
    {},
    image,
    html("span", {}, sample.predicted),
    html("span", { class: "hint" }, `${percent(sample.probability, 0)}, is ${sample.target}`),
  );
}
