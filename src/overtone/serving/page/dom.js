// Elements of HTML and SVG from names, properties and children. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {any} Child text, a number, a node, or an array of these; null and undefined are left out
 * @param {Element} element
 * @param {Record<string, any>} properties attributes; `on…` with a function is a listener, `false` and null are absent
 * @param {Child[]} children
 */
function made(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined)
      element.setAttribute(name, value === true ? "" : String(value));
  }
  return filled(element, ...children);
}

/** Replace what an element holds. @param {Element} element @param {Child[]} children */
export function filled(element, ...children) {
  const present = children.flat(Infinity).filter((child) => child !== null && child !== undefined);
  element.replaceChildren(...present.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/**
 * @param {string} name @param {Record<string, any>} [properties] @param {Child[]} children
 * @returns {any} the HTML element
 */
export function html(name, properties = {}, ...children) {
  return made(document.createElement(name), properties, children);
}

/**
 * @param {string} name @param {Record<string, any>} [properties] @param {Child[]} children
 * @returns {any} the SVG element
 */
export function svg(name, properties = {}, ...children) {
  return made(document.createElementNS(SVG, name), properties, children);
}

/** A labelled `<select>`. @param {string} label @param {[string, string][]} choices value and text @param {(value: string) => void} chosen */
export function select(label, choices, chosen) {
  const list = html(
    "select",
    { "aria-label": label, onchange: () => chosen(list.value) },
    choices.map(([value, text]) => html("option", { value }, text)),
  );
  return { list, field: html("label", { class: "field" }, html("span", {}, label), list) };
}

/** A labelled slider that shows its value. @param {string} label @param {number} value 0 to 1 @param {(value: number) => void} moved */
export function slider(label, value, moved) {
  const shown = html("output", {}, percent(value, 0));
  const input = html("input", {
    type: "range",
    "aria-label": label,
    min: 0,
    max: 100,
    value: Math.round(100 * value),
    oninput: () => {
      shown.textContent = percent(input.value / 100, 0);
      moved(input.value / 100);
    },
  });
  return html("label", { class: "field slider" }, html("span", {}, label), input, shown);
}

/** A button that copies a text and says so. @param {() => string} text */
export function copyButton(text) {
  const button = html(
    "button",
    {
      type: "button",
      class: "quiet",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text());
          button.textContent = "Copied";
        } catch {
          button.textContent = "Select it and copy by hand";
        }
        setTimeout(() => {
          button.textContent = "Copy";
        }, 1600);
      },
    },
    "Copy",
  );
  return button;
}

/** @param {number} share 0 to 1 @param {number} [places] */
export function percent(share, places = 1) {
  return `${(100 * share).toFixed(places)} %`;
}

/** A count with its magnitude: 4.23 M, 1.2 G. @param {number | null} count */
export function magnitude(count) {
  if (count === null) return "–";
  const [unit, sign] =
    count >= 1e12
      ? [1e12, " T"]
      : count >= 1e9
        ? [1e9, " G"]
        : count >= 1e6
          ? [1e6, " M"]
          : count >= 1e3
            ? [1e3, " k"]
            : [1, ""];
  return `${Number((count / unit).toPrecision(3))}${sign}`;
}
