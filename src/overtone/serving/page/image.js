// An image with what is drawn over it: a layer of pixels, and one of shapes.

import { html, svg } from "./dom.js";

const LONGEST = 800; // pixels of a side

/**
 * @typedef {object} Stage
 * @property {HTMLElement} element
 * @property {HTMLCanvasElement} image
 * @property {HTMLCanvasElement} over pixels over the image
 * @property {SVGElement} shapes over both, in pixels of the image
 * @property {() => void} clear take away what is over the image
 */

/** @param {string} name @returns {Stage} */
export function imageStage(name) {
  const image = html("canvas", { class: "layer", width: 4, height: 3, role: "img", "aria-label": name || "image" });
  const over = html("canvas", { class: "layer", width: 4, height: 3, "aria-hidden": "true" });
  const shapes = svg("svg", { class: "layer" });
  const element = html("div", { class: "image" }, image, over, shapes);
  const clear = () => {
    over.getContext("2d").clearRect(0, 0, over.width, over.height);
    shapes.replaceChildren();
  };
  return { element, image, over, shapes, clear };
}

/** The size at which pixels are kept: sixty photos of a camera at their own would fill the memory. @param {number} width @param {number} height */
export function fitted(width, height) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  return { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
}

/**
 * Draw a file, as it is stored where only that has the size that the server saw; one that the browser cannot read stays blank.
 * @param {Stage} stage @param {Blob} file @param {{width: number, height: number}} [seen]
 */
export async function drawImage(stage, file, seen) {
  const resize = (/** @type {{width: number, height: number}} */ size) => {
    for (const canvas of [stage.image, stage.over]) Object.assign(canvas, fitted(size.width, size.height));
    stage.shapes.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
  };
  if (seen && stage.shapes.getAttribute("viewBox") === `0 0 ${seen.width} ${seen.height}`) return;
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: seen ? "none" : "from-image" });
    resize(bitmap);
    stage.image.getContext("2d")?.drawImage(bitmap, 0, 0, stage.image.width, stage.image.height);
    bitmap.close();
  } catch {
    if (seen) resize(seen);
  }
}

/** Put pixels over the whole image. @param {Stage} stage @param {CanvasImageSource} pixels */
export function cover(stage, pixels) {
  const context = /** @type {CanvasRenderingContext2D} */ (stage.over.getContext("2d"));
  context.clearRect(0, 0, stage.over.width, stage.over.height);
  context.drawImage(pixels, 0, 0, stage.over.width, stage.over.height);
}
