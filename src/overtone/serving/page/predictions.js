// What a prediction looks like, by task: elements under the image, and layers over it.

import { html, percent, slider, svg } from "./dom.js";
import { cover, fitted } from "./image.js";

/**
 * @typedef {import("./image.js").Stage} Stage
 * @typedef {((label: number) => Promise<ImageBitmap>) | null} Explain
 * @param {string} task @param {any} answer of one image @param {Stage} stage @param {Explain} explain
 * @returns {Node[]}
 */
export function showPrediction(task, answer, stage, explain) {
  stage.over.style.opacity = "";
  const show = { classification, multilabel, segmentation, detection }[task];
  return show
    ? show(answer, stage, explain)
    : [html("pre", { class: "scroll" }, JSON.stringify(answer.predictions, null, 1))];
}

/** A name, a bar and a figure. @param {string} name @param {number} share 0 to 1 @param {Record<string, any>} [properties] */
function barRow(name, share, properties = {}) {
  const fill = html("span", { class: "fill" });
  fill.style.width = `${100 * share}%`;
  return html(
    "li",
    { class: "bar-row", ...properties },
    html("span", { class: "what" }, name),
    html("span", { class: "figure" }, percent(share)),
    html("span", { class: "bar", "aria-hidden": "true" }, fill),
  );
}

/** @param {any} answer @param {Stage} stage @param {Explain} explain */
function classification(answer, stage, explain) {
  const rows = answer.predictions.map((/** @type {any} */ one) => barRow(one.class, one.probability));
  return [
    html("ol", { class: "bars", "aria-label": "Most probable classes" }, rows),
    heatMap(
      stage,
      explain,
      answer.predictions.map((/** @type {any} */ one) => ({ index: one.index, name: one.class })),
    ),
  ];
}

/** A button for the heat map of a class, and the slider of its opacity. @param {Stage} stage @param {Explain} explain @param {{index: number, name: string}[]} labels */
function heatMap(stage, explain, labels) {
  const line = html("p", { class: "hint", role: "status" }, explain ? "" : "This server makes no heat maps.");
  const list = html(
    "select",
    { "aria-label": "Class of the heat map", disabled: !explain },
    labels.map(({ index, name }) => html("option", { value: index }, name)),
  );
  const opacity = slider("Overlay", 0.6, (value) => {
    stage.over.style.opacity = String(value);
  });
  const input = /** @type {HTMLInputElement} */ (opacity.querySelector("input"));
  input.disabled = true;
  const button = html(
    "button",
    {
      type: "button",
      disabled: !explain || !labels.length,
      onclick: async () => {
        button.disabled = true;
        line.textContent = "Computing";
        try {
          cover(stage, await /** @type {NonNullable<Explain>} */ (explain)(Number(list.value)));
          stage.over.style.opacity = String(Number(input.value) / 100);
          input.disabled = false;
          line.textContent = "";
        } catch (error) {
          line.textContent = /** @type {Error} */ (error).message;
        }
        button.disabled = false;
      },
    },
    "Heat map",
  );
  return html("div", { class: "tools" }, html("div", { class: "controls" }, button, list), opacity, line);
}

/** @param {any} answer @param {Stage} stage @param {Explain} explain */
function multilabel(answer, stage, explain) {
  const all = [...answer.predictions, ...(answer.below ?? [])].sort(
    (one, other) => other.probability - one.probability,
  );
  const rows = all.map((one) => barRow(one.label, one.probability));
  const count = html("p", { class: "hint", role: "status" });
  const apply = (/** @type {number | null} */ threshold) => {
    let present = 0;
    all.forEach((one, at) => {
      const holds = one.probability >= (threshold ?? one.threshold);
      present += Number(holds);
      rows[at].classList.toggle("absent", !holds);
    });
    count.textContent = `${present} of ${all.length} labels, ${threshold === null ? "at their own thresholds" : `from ${percent(threshold, 0)}`}`;
  };
  const threshold = slider("Threshold", all[0]?.threshold ?? 0.5, apply);
  const own = html("button", { type: "button", class: "quiet", onclick: () => apply(null) }, "Reset");
  apply(null);
  const labels = all.slice(0, 5).map(({ index, label }) => ({ index, name: label }));
  return [
    threshold,
    html("div", { class: "line" }, count, own),
    html("ol", { class: "bars", "aria-label": "Labels" }, rows),
    heatMap(stage, explain, labels),
  ];
}

/** @param {any} answer @param {Stage} stage */
function segmentation(answer, stage) {
  const opacity = slider("Overlay", 0.55, (value) => {
    stage.over.style.opacity = String(value);
  });
  stage.over.style.opacity = "0.55";
  pixelsOf(answer.mask).then((pixels) => cover(stage, pixels));
  const legend = answer.predictions.map((/** @type {any} */ one) =>
    html(
      "li",
      { class: "legend-row" },
      swatch(one.colour),
      html("span", { class: "what" }, one.label),
      html("span", { class: "figure" }, percent(one.share)),
    ),
  );
  return [opacity, html("ul", { class: "bars", "aria-label": "Classes with their shares of the image" }, legend)];
}

/** @param {any} answer @param {Stage} stage */
function detection(answer, stage) {
  const found = answer.predictions;
  const masks = /** @type {Promise<(HTMLCanvasElement | null)[]>} */ (
    Promise.all(found.map((/** @type {any} */ one) => (one.mask ? tinted(one.mask, one.colour) : null)))
  );
  const line = html("p", { class: "hint", role: "status" });
  let least = 0.5;
  let marked = -1;
  stage.over.style.opacity = "0.5";

  const boxes = found.map((/** @type {any} */ one, /** @type {number} */ at) => {
    const [left, top, right, bottom] = one.box;
    const box = svg(
      "rect",
      {
        class: "box",
        x: left,
        y: top,
        width: right - left,
        height: bottom - top,
        stroke: one.colour,
        "aria-label": `${one.label}, ${percent(one.score)}`,
        role: "img",
      },
      svg("title", {}, `${one.label} ${percent(one.score)}`),
    );
    box.addEventListener("pointerenter", () => mark(at));
    box.addEventListener("pointerleave", () => mark(-1));
    return box;
  });
  const rows = found.map((/** @type {any} */ one, /** @type {number} */ at) =>
    html(
      "li",
      {},
      html(
        "button",
        {
          type: "button",
          class: "legend-row link",
          onpointerenter: () => mark(at),
          onpointerleave: () => mark(-1),
          onfocus: () => mark(at),
          onblur: () => mark(-1),
        },
        swatch(one.colour),
        html("span", { class: "what" }, one.label),
        html("span", { class: "figure" }, percent(one.score)),
      ),
    ),
  );

  const mark = (/** @type {number} */ at) => {
    marked = at;
    draw();
  };
  const draw = () => {
    const shown = found.map((/** @type {any} */ one) => one.score >= least);
    stage.shapes.replaceChildren(...boxes.filter((/** @type {Element} */ _, /** @type {number} */ at) => shown[at]));
    boxes.forEach((/** @type {Element} */ box, /** @type {number} */ at) =>
      box.classList.toggle("marked", at === marked),
    );
    rows.forEach((/** @type {Element} */ row, /** @type {number} */ at) => {
      row.toggleAttribute("hidden", !shown[at]);
      row.classList.toggle("marked", at === marked);
    });
    line.textContent = `${shown.filter(Boolean).length} of ${found.length} objects`;
    masks.then((all) => {
      const context = /** @type {CanvasRenderingContext2D} */ (stage.over.getContext("2d"));
      context.clearRect(0, 0, stage.over.width, stage.over.height);
      all.forEach((mask, at) => {
        if (mask && shown[at] && (marked < 0 || marked === at))
          context.drawImage(mask, 0, 0, stage.over.width, stage.over.height);
      });
    });
  };
  const best = found[0]?.score ?? 0;
  if (best < least) least = Math.floor(20 * best) / 20; // the slider's steps, so that the best one is seen
  draw();
  return [
    slider("Least score", least, (value) => {
      least = value;
      draw();
    }),
    line,
    html("ul", { class: "bars", "aria-label": "Objects" }, rows),
  ];
}

/** @param {string} colour */
function swatch(colour) {
  const mark = html("span", { class: "swatch", "aria-hidden": "true" });
  mark.style.color = colour;
  return mark;
}

/** @param {{format: string, data: string}} mask @returns {Promise<HTMLImageElement>} */
async function pixelsOf(mask) {
  const image = new Image();
  image.src = `data:image/png;base64,${mask.data}`;
  await image.decode();
  return image;
}

/** The white pixels of a mask in one colour, the others transparent. @param {{format: string, data: string}} mask @param {string} colour */
async function tinted(mask, colour) {
  const pixels = await pixelsOf(mask);
  const canvas = html("canvas", fitted(pixels.naturalWidth, pixels.naturalHeight));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(pixels, 0, 0, canvas.width, canvas.height);
  const all = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < all.data.length; at += 4) all.data[at + 3] = all.data[at];
  context.putImageData(all, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}
