// A photo from the camera, in a dialog.

import { html } from "./dom.js";

/** @returns {Promise<File | null>} the photo as JPEG; null where there is none */
export async function takePhoto() {
  let stream = /** @type {MediaStream | null} */ (null);
  const video = html("video", { autoplay: true, playsinline: true, "aria-label": "Image of the camera" });
  video.muted = true;
  const line = html("p", { class: "hint", role: "status" }, "Waiting for the camera");
  const take = html("button", { value: "take", class: "first", disabled: true }, "Take the photo");
  const dialog = html(
    "dialog",
    { "aria-label": "Camera" },
    html(
      "form",
      { method: "dialog", class: "form" },
      video,
      line,
      html("div", { class: "controls" }, take, html("button", { value: "" }, "Cancel")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  try {
    if (!navigator.mediaDevices) throw new Error("insecure");
    stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: 1280 } },
    });
    video.srcObject = stream;
    take.disabled = false;
    line.textContent = "";
  } catch {
    line.textContent = "The camera cannot be used: allow it for this page, which must be of this machine or use https.";
  }
  await new Promise((closed) => dialog.addEventListener("close", closed, { once: true }));
  const photo = dialog.returnValue === "take" && video.videoWidth ? await jpegOf(video) : null;
  stream?.getTracks().forEach((track) => track.stop());
  dialog.remove();
  return photo && new File([photo], "photo.jpg", { type: "image/jpeg" });
}

/** @param {HTMLVideoElement} video @returns {Promise<Blob | null>} */
function jpegOf(video) {
  const canvas = html("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((made) => canvas.toBlob(made, "image/jpeg", 0.92));
}
