// Calls of the server. A token, where the server wants one, is asked for once and kept for the tab.

import { html } from "./dom.js";

const KEY = "overtone-token";
const RETRIES = 4;

/**
 * Call the server; a busy one is asked again after the time it names.
 * @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} a successful one
 * @throws {Error} with the server's own line
 */
export async function call(path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    const token = sessionStorage.getItem(KEY);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers });
    } catch (error) {
      if (/** @type {Error} */ (error).name === "AbortError") throw error;
      throw new Error("The server does not answer; see whether it still runs.");
    }
    if (answer.ok) return answer;
    if (answer.status === 503 && attempt < RETRIES) {
      await new Promise((wake) => setTimeout(wake, 1000 * Number(answer.headers.get("Retry-After") || 1)));
    } else if (answer.status === 401) {
      sessionStorage.setItem(KEY, await askToken());
    } else {
      throw new Error(await lineOf(answer));
    }
  }
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<any>} */
export async function json(path, options) {
  return (await call(path, options)).json();
}

/** An image of the server as an address for `<img>`, which cannot send a token itself. @param {string} path */
export async function imageAddress(path) {
  return URL.createObjectURL(await (await call(path)).blob());
}

/**
 * Server-sent events, again and again until aborted: EventSource cannot send a token.
 * @param {string} path @param {(kind: string, data: any) => void} happened @param {AbortSignal} signal
 */
export async function events(path, happened, signal) {
  while (!signal.aborted) {
    try {
      const stream = (await call(path, { signal })).body?.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await stream?.read(); part && !part.done; part = await stream?.read()) {
        const messages = (text + part.value).split("\n\n");
        text = messages.pop() ?? "";
        for (const message of messages) {
          const fields = Object.fromEntries(
            message.split("\n").map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
          );
          if (fields.event) happened(fields.event, JSON.parse(fields.data));
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    await new Promise((wake) => setTimeout(wake, 3000));
  }
}

/** @type {Promise<string> | null} */
let asking = null;

function askToken() {
  asking ??= new Promise((resolve) => {
    const input = html("input", { type: "password", required: true, autocomplete: "off", id: "token" });
    const dialog = html(
      "dialog",
      { "aria-labelledby": "token-title", oncancel: (/** @type {Event} */ event) => event.preventDefault() },
      html(
        "form",
        { method: "dialog", class: "form" },
        html("h3", { id: "token-title" }, "This server asks for a token"),
        html("label", { class: "field" }, html("span", {}, "Token"), input),
        html("button", { class: "first" }, "Continue"),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      asking = null;
      resolve(input.value.trim());
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

/** @param {Response} answer */
async function lineOf(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}
