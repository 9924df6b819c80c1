// Images come in by drop, paste, choice or camera; each becomes a card with its prediction.

import { call, json } from "./api.js";
import { takePhoto } from "./camera.js";
import { filled, html, select } from "./dom.js";
import { drawImage, imageStage } from "./image.js";
import { showPrediction } from "./predictions.js";

const AT_ONCE = 4; // requests on their way
const MOST = 60; // cards
const STAGES = ["read", "decode", "queue", "compute", "answer"];

/** @typedef {{name: string, task: string, labels: string[], runtime: string, size: number}} Model */

/** @param {HTMLElement} place */
export async function showPredict(place) {
  const served = await json("v1/models");
  let model = /** @type {Model} */ (served.models[0]);
  const cards = /** @type {Card[]} */ ([]);
  const waiting = /** @type {Card[]} */ ([]);
  let running = 0;

  const start = () => {
    while (running < AT_ONCE && waiting.length) {
      running++;
      const card = /** @type {Card} */ (waiting.shift());
      card.run(model, served.explain).finally(() => {
        running--;
        start();
      });
    }
  };
  const add = (/** @type {Iterable<File>} */ files) => {
    const fresh = [...files].map((file) => new Card(file));
    cards.unshift(...fresh);
    waiting.push(...fresh);
    grid.prepend(...fresh.map((card) => card.element));
    for (const card of cards.splice(MOST)) card.remove();
    grid.hidden = !cards.length;
    clear.hidden = !cards.length;
    start();
  };

  const input = html("input", {
    type: "file",
    accept: "image/*",
    multiple: true,
    id: "files",
    class: "unseen",
    onchange: () => {
      add(input.files);
      input.value = "";
    },
  });
  const grid = html("ol", { class: `results ${model.task}`, hidden: true, "aria-label": "Predictions" });
  const clear = html(
    "button",
    {
      type: "button",
      class: "quiet",
      hidden: true,
      onclick: () => {
        for (const card of cards.splice(0)) card.remove();
        grid.hidden = clear.hidden = true;
        input.focus();
      },
    },
    "Remove all",
  );
  const camera = html(
    "button",
    {
      type: "button",
      onclick: async () => {
        const file = await takePhoto();
        if (file) add([file]);
      },
    },
    "Use the camera",
  );
  const zone = html(
    "div",
    { class: "zone", role: "group", "aria-label": "Add images" },
    html("p", {}, "Drop images here, paste them, or"),
    html(
      "div",
      { class: "controls" },
      input,
      html("label", { for: "files", class: "button" }, "Choose files"),
      camera,
      clear,
    ),
  );
  const models = select(
    "Model",
    served.models.map((/** @type {Model} */ one) => [one.name, `${one.name} (${one.task})`]),
    (name) => {
      model = served.models.find((/** @type {Model} */ one) => one.name === name);
      about.textContent = description(model);
      grid.className = `results ${model.task}`;
      waiting.splice(0, Infinity, ...cards);
      start();
    },
  );
  const about = html("p", { class: "hint" }, description(model));
  filled(/** @type {Element} */ (document.getElementById("models")), models.field);
  filled(place, html("div", { class: "stack" }, about, zone, grid));
  acceptDrops(zone, add);
}

/** @param {Model} model */
function description(model) {
  const count = model.labels.length;
  return `${model.task[0].toUpperCase()}${model.task.slice(1)}, ${count} ${count === 1 ? "label" : "labels"}, ${model.size} px, ${model.runtime}`;
}

/** Files that are dropped anywhere on the page, or pasted. @param {HTMLElement} zone @param {(files: File[]) => void} add */
function acceptDrops(zone, add) {
  let depth = 0;
  const carries = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files");
  const mark = (/** @type {DragEvent} */ event, /** @type {number} */ step) => {
    if (!carries(event)) return;
    depth = Math.max(0, depth + step);
    zone.classList.toggle("over", depth > 0);
  };
  addEventListener("dragenter", (event) => mark(event, 1));
  addEventListener("dragleave", (event) => mark(event, -1));
  addEventListener("dragover", (event) => {
    if (carries(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    mark(event, -Infinity);
    add([...(event.dataTransfer?.files ?? [])]);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length) add(files);
  });
}

/** One image with its prediction. */
class Card {
  /** @param {File} file */
  constructor(file) {
    this.file = file;
    this.stage = imageStage(file.name);
    this.result = html("div", { class: "result", "aria-live": "polite" });
    this.latency = html("div", { class: "latency" });
    this.element = html(
      "li",
      { class: "card" },
      html("h3", { class: "file" }, file.name || "image"),
      this.stage.element,
      this.result,
      this.latency,
    );
    this.number = 0;
  }

  /** Predict, unless a later call of this method has begun meanwhile. @param {Model} model @param {boolean} explains */
  async run(model, explains) {
    const number = ++this.number;
    this.element.setAttribute("aria-busy", "true");
    this.stage.clear();
    const drawn = drawImage(this.stage, this.file);
    try {
      const began = performance.now();
      const query = new URLSearchParams({ model: model.name, top_k: model.task === "classification" ? "5" : "100" });
      const answer = await json(`v1/predict?${query}`, {
        method: "POST",
        body: this.file,
        headers: { "Content-Type": "application/octet-stream" },
      });
      const seconds = performance.now() - began;
      await drawn;
      if (number !== this.number) return;
      const image = answer.images[0];
      const explain = !explains
        ? null
        : async (/** @type {number} */ label) =>
            createImageBitmap(
              await (
                await call(`v1/explain?${new URLSearchParams({ model: model.name, label: String(label) })}`, {
                  method: "POST",
                  body: this.file,
                  headers: { "Content-Type": "application/octet-stream" },
                })
              ).blob(),
            );
      await drawImage(this.stage, this.file, image);
      filled(this.result, showPrediction(model.task, image, this.stage, explain));
      filled(this.latency, latency({ ...answer.milliseconds, ...image.milliseconds }, seconds));
    } catch (error) {
      if (number !== this.number) return;
      filled(this.result, html("p", { class: "error", role: "alert" }, /** @type {Error} */ (error).message));
      filled(this.latency);
    } finally {
      if (number === this.number) this.element.removeAttribute("aria-busy");
    }
  }

  remove() {
    this.number++;
    this.element.remove();
  }
}

/** Where the time went. @param {Record<string, number>} milliseconds @param {number} seen milliseconds until the answer was here */
function latency(milliseconds, seen) {
  const stages = STAGES.filter((stage) => milliseconds[stage] !== undefined);
  const sum = stages.reduce((total, stage) => total + milliseconds[stage], 0) || 1;
  const bar = html(
    "div",
    { class: "bar stages", "aria-hidden": "true" },
    stages.map((stage, index) => {
      const part = html("span", { class: `part family-${index % 6}` });
      part.style.flexGrow = String(milliseconds[stage] / sum);
      return part;
    }),
  );
  const names = stages.map((stage, index) =>
    html(
      "span",
      {},
      html("span", { class: `swatch family-${index % 6}` }),
      `${stage} ${milliseconds[stage].toFixed(1)}`,
    ),
  );
  return [bar, html("p", { class: "hint stage-names" }, names, html("span", {}, `round trip ${seen.toFixed(0)} ms`))];
}
