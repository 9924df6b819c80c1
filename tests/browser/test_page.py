"""The page in a real browser: images in, every task, explorer, runs; dark, narrow, named, nothing from elsewhere.

One file: a process that runs its tests needs one server and one browser.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from running_site import LABELS, Site
from written_runs import add_epoch

from overtone.reports.explorer import points
from overtone.serving.explorer_file import explorer_html

pytestmark = pytest.mark.browser

DROP = """([name, text]) => {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const zone = document.querySelector(".zone");
  for (const kind of ["dragenter", "dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
  }
}"""
PASTE = (
    DROP.replace('document.querySelector(".zone")', "document.body")
    .replace('for (const kind of ["dragenter", "dragover", "drop"])', 'for (const kind of ["paste"])')
    .replace("new DragEvent(kind, { dataTransfer: data,", "new ClipboardEvent(kind, { clipboardData: data,")
)
SHIFTS = """() => { window.shifts = 0; new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifts += entry.value;
}).observe({ type: "layout-shift", buffered: true }); }"""
OPACITY = "(canvas) => getComputedStyle(canvas).opacity"
INK = """(canvas) => {
  const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return all.data.some((value) => value);
}"""
CONTRAST = """() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const linear = parts.map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const all = [...document.querySelectorAll("h2, .hint, .toggle, .tick, summary, nav a, select")]
    .filter((one) => one.checkVisibility());
  const worst = Math.min(...all.map((one) => {
    const style = getComputedStyle(one);
    const text = light(one instanceof SVGElement ? style.fill : style.color);
    return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  }));
  return [ground, worst];
}"""
NAMED = "button, input, select, a, [role=button], [role=img], img, fieldset, svg.chart"
NAMELESS = f"""() => [...document.querySelectorAll("{NAMED}")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !(one.ariaLabel || one.getAttribute("aria-label") || one.textContent.trim() || one.alt
    || [...(one.labels ?? [])].some((label) => label.textContent.trim())))
  .map((one) => one.outerHTML)"""


def text_of(path: Path) -> list[str]:
    """Name and content of a file, as the scripts above take it."""
    return [path.name, base64.b64encode(path.read_bytes()).decode()]


def choose(page: Any, model: str) -> None:
    page.get_by_label("Model").select_option(model)


def test_a_dropped_jpeg_gets_its_five_classes(opened, site: Site, photo: Path) -> None:
    page = opened()
    page.wait_for_selector(".zone")
    page.evaluate(SHIFTS)
    page.evaluate(DROP, text_of(photo))
    rows = page.locator(".results .bar-row")
    rows.nth(4).wait_for()
    answer = httpx.post(f"{site.address}/v1/predict?model=classification", content=photo.read_bytes()).json()
    wanted = answer["images"][0]["predictions"]
    assert rows.count() == 5
    assert rows.locator(".what").all_inner_texts() == [one["class"] for one in wanted]
    shown = [float(text.removesuffix(" %")) for text in rows.locator(".figure").all_inner_texts()]
    assert shown == pytest.approx([100 * one["probability"] for one in wanted], abs=0.1)
    stages = page.locator(".stage-names").inner_text()
    assert all(stage in stages for stage in ("read", "decode", "queue", "compute", "answer", "round trip"))
    assert page.locator(".results canvas").first.evaluate(INK)
    assert page.evaluate("window.shifts") < 0.1


def test_the_heat_map_lies_over_the_image_as_the_slider_says(opened, photo: Path) -> None:
    page = opened()
    page.set_input_files("#files", photo)
    slider, over = page.get_by_label("Overlay"), page.locator(".results canvas").nth(1)
    page.get_by_role("button", name="Heat map").click()
    page.wait_for_function("() => !document.querySelector('.results input[type=range]').disabled")
    assert over.evaluate(INK)
    slider.fill("25")
    assert float(over.evaluate(OPACITY)) == pytest.approx(0.25)
    slider.press("ArrowRight")
    assert float(over.evaluate(OPACITY)) == pytest.approx(0.26)


def test_a_broken_file_shows_the_line_of_the_server(opened, site: Site, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:500])
    (tmp_path / "empty.jpg").write_bytes(b"")
    before = len(site.errors)
    page = opened()
    page.set_input_files("#files", [tmp_path / "cut.jpg", photo, tmp_path / "empty.jpg"])
    page.locator(".results .error").nth(1).wait_for()
    page.locator(".bar-row").first.wait_for()
    answer = httpx.post(f"{site.address}/v1/predict", content=(tmp_path / "cut.jpg").read_bytes())
    assert answer.status_code == 400
    assert page.locator(".results .error").first.inner_text() == answer.json()["error"]
    assert page.locator(".results h3").all_inner_texts() == ["cut.jpg", "photo.jpg", "empty.jpg"]
    assert all("400" in line for line in site.errors[before:])  # the browser itself notes these two answers
    del site.errors[before:]


def test_a_pasted_image_and_the_thresholds_of_labels(opened, photo: Path) -> None:
    page = opened()
    page.wait_for_selector(".zone")
    choose(page, "multilabel")
    page.evaluate(PASTE, text_of(photo))
    page.locator(".bar-row").nth(len(LABELS) - 1).wait_for()
    present = page.locator(".bar-row:not(.absent)")
    slider = page.get_by_label("Threshold", exact=True)
    slider.fill("0")
    assert present.count() == len(LABELS)
    slider.fill("100")
    assert present.count() == 0
    assert "0 of 8" in page.locator(".result [role=status]").first.inner_text()


def test_a_photo_is_taken(opened) -> None:
    page = opened()
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("() => document.querySelector('video').videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()
    page.locator(".bar-row").nth(4).wait_for()
    assert page.locator(".results h3").inner_text() == "photo.jpg"


def test_another_model_predicts_the_same_images_anew(opened, photo: Path) -> None:
    page = opened()
    page.set_input_files("#files", photo)
    page.locator(".bar-row").first.wait_for()
    choose(page, "segmentation")
    page.locator("li.legend-row").first.wait_for()
    shares = [float(text.removesuffix(" %")) for text in page.locator(".legend-row .figure").all_inner_texts()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    over = page.locator(".results canvas").nth(1)
    page.wait_for_function(f"() => ({INK})(document.querySelectorAll('.results canvas')[1])")
    page.get_by_label("Overlay").fill("80")
    assert float(over.evaluate(OPACITY)) == pytest.approx(0.8)


def test_boxes_and_masks_are_marked_together(opened, photo: Path) -> None:
    mask = np.zeros((90, 120), bool)
    mask[20:50, 10:40] = True
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    objects = [
        {"label": "ant", "score": 0.9, "box": [10, 20, 40, 50], "colour": "#ff0000"}
        | {"mask": {"format": "png", "data": base64.b64encode(file.getvalue()).decode()}},
        {"label": "bee", "score": 0.2, "box": [60, 20, 90, 50], "colour": "#0000ff"},
    ]
    image = {"width": 120, "height": 90, "predictions": objects, "milliseconds": {"compute": 1.0}}
    models = {"models": [{"name": "found", "task": "detection", "labels": ["ant", "bee"], "size": 64, "runtime": "x"}]}
    page = opened(url="about:blank")
    page.route("**/v1/models", lambda route: route.fulfill(json=models | {"explain": False}))
    answer = {"model": "found", "task": "detection", "images": [image], "milliseconds": {"read": 0.1}}
    page.route("**/v1/predict*", lambda route: route.fulfill(json=answer))
    page.goto(opened().url)
    page.set_input_files("#files", photo)
    boxes, names = page.locator("rect.box"), page.locator("button.legend-row:visible")
    boxes.first.wait_for()
    assert (boxes.count(), names.count()) == (1, 1)
    names.first.focus()
    assert "marked" in (boxes.first.get_attribute("class") or "").split()
    boxes.first.hover()
    assert page.locator("li.marked").inner_text().startswith("ant")
    page.wait_for_function(f"() => ({INK})(document.querySelectorAll('.results canvas')[1])")
    page.get_by_label("Least score").fill("10")
    assert (boxes.count(), names.count()) == (2, 2)


def test_a_token_is_asked_for_and_sent(opened, site: Site, photo: Path) -> None:
    before = len(site.errors)
    page = opened(url="about:blank")
    shown: list[str] = []

    def guard(route: Any) -> None:
        shown.append(route.request.headers.get("authorization", ""))
        if shown[-1] == "Bearer secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"error": "a token is needed"})

    page.route("**/v1/*", guard)
    page.goto(f"{site.address}/#predict")
    page.get_by_label("Token", exact=True).fill("wrong")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_function("() => document.querySelector('#token')?.value === ''")
    page.get_by_label("Token", exact=True).fill("secret")
    page.keyboard.press("Enter")
    page.wait_for_selector(".zone")
    page.set_input_files("#files", photo)
    page.locator(".bar-row").first.wait_for()
    assert shown[:3] == ["", "Bearer wrong", "Bearer secret"]
    assert all("401" in line for line in site.errors[before:])
    del site.errors[before:]


def test_without_a_mouse(opened, photo: Path) -> None:
    page = opened()
    page.wait_for_selector(".zone")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        focused = page.evaluate("() => document.activeElement.id || document.activeElement.textContent")
        reached.append(focused)
        if focused == "files":
            break
    assert reached[:4] == ["To the content", "Predict", "Explorer", "Runs"] and reached[-1] == "files", reached
    with page.expect_file_chooser() as choosing:
        page.keyboard.press("Space")
    choosing.value.set_files(photo)
    page.locator(".bar-row").first.wait_for()
    page.get_by_role("link", name="Explorer").focus()
    page.keyboard.press("Enter")
    page.locator(".mark").first.focus()
    page.keyboard.press("ArrowRight")
    name = page.evaluate("() => document.activeElement.dataset.name")
    page.keyboard.press("Enter")
    assert page.locator(".details h3").inner_text() == name


def names(page: Any) -> list[str]:
    """Names of the points that are drawn."""
    return page.locator(".mark").evaluate_all("(all) => all.map((one) => one.dataset.name)")


def test_points_are_filtered_by_family_and_give_their_command(opened) -> None:
    page = opened("explorer")
    page.locator(".mark").first.wait_for()
    wanted = {point.name for point in points() if point.benchmark == "ImageNet-1K top-1"}
    assert set(names(page)) == wanted
    page.get_by_label("hornet", exact=True).uncheck()
    assert set(names(page)) == {name for name in wanted if not name.startswith("hornet")}
    front = page.locator(".front")
    assert front.count() == 1
    page.get_by_label("Pareto front").uncheck()
    assert front.count() == 0
    page.get_by_label("Against", exact=True).select_option("parameters")
    mark = page.locator(".mark[data-name='hbonet_x100.dli14_in1k']")
    mark.focus()
    assert "4.56 M parameters" in page.locator(".tip").inner_text()
    mark.press("Enter")
    assert page.locator(".command code").inner_text() == "overtone predict hbonet_x100.dli14_in1k image.jpg"
    page.get_by_label("Score", exact=True).select_option("top-1 on photos")
    assert set(names(page)) == {"first", "second"}


def test_the_file_of_the_explorer_opens_from_disk(opened, site: Site, tmp_path: Path) -> None:
    path, asked = tmp_path / "explorer.html", len(site.asked)
    path.write_text(explorer_html(points(site.runs)), encoding="utf-8")
    page = opened(url=path.as_uri())
    page.locator(".mark").nth(40).wait_for()
    assert site.asked[asked:] == [path.as_uri()]
    del site.asked[asked:]


def test_a_curve_grows_while_a_run_trains(opened, site: Site) -> None:
    page = opened("runs")
    page.get_by_role("checkbox", name="first").wait_for()
    page.get_by_role("checkbox", name="second").check()
    curves = page.locator(".panel").first.locator(".curve")
    page.wait_for_function("() => document.querySelectorAll('.panel:first-child .curve').length === 2")
    assert [len(curves.nth(at).get_attribute("points").split()) for at in (0, 1)] == [3, 3]
    assert page.locator("table:has-text('Results') thead").first.inner_text().split()[1:] == ["first", "second"]
    page.get_by_text("1 settings differ").click()
    assert page.locator("details tr:has-text('optim.lr')").inner_text().split() == ["optim.lr", "0.1", "0.5"]
    page.wait_for_timeout(300)
    add_epoch(site.runs / "second", 4)
    page.wait_for_function(
        "() => document.querySelectorAll('.panel:first-child .curve')[1].getAttribute('points').split(' ').length === 4"
    )
    assert "4/" in page.locator("tr[data-name=second]").inner_text()


def test_the_images_behind_a_confusion(opened) -> None:
    page = opened("runs")
    shown = page.locator(".thumbs li")
    shown.nth(1).wait_for()
    assert [text.split() for text in shown.all_inner_texts()] == [
        ["dog", "80", "%,", "is", "owl"],
        ["dog", "60", "%,", "is", "cat"],
    ]
    page.get_by_label("1 of cat taken for cat").click()
    assert shown.count() == 1
    page.wait_for_function("() => document.querySelector('.thumbs img').naturalWidth > 0")


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_read_easily(opened, dark: bool) -> None:
    page = opened("explorer", dark=dark)
    page.locator(".mark").first.wait_for()
    ground, worst = page.evaluate(CONTRAST)
    assert (ground < 0.1) is dark
    assert worst >= 4.5  # WCAG 2.2, level AA


def test_a_phone_shows_every_page_whole(opened, photo: Path) -> None:
    page = opened(width=390)
    page.set_input_files("#files", [photo, photo])
    page.locator(".bar-row").nth(9).wait_for()
    for name, ready in (("predict", ".bar-row"), ("explorer", ".mark"), ("runs", ".thumbs img")):
        page.get_by_role("link", name=name).click()
        page.locator(f"#page-{name} {ready}").first.wait_for()
        assert page.evaluate("() => document.documentElement.scrollWidth") == 390, name
        assert page.evaluate(NAMELESS) == [], name


def test_nothing_comes_from_elsewhere_and_no_script_but_the_pages_own_runs(opened, site: Site) -> None:
    page = opened()
    page.wait_for_selector(".zone")
    asked = list(site.asked)
    blocked = page.evaluate(
        """() => new Promise((done) => {
          const found = [];
          addEventListener("securitypolicyviolation", (event) => {
            found.push(event.effectiveDirective);
            if (found.length === 3) done([found.sort(), window.broken ?? null]);
          });
          const script = document.createElement("script");
          script.textContent = "window.broken = true";
          const image = new Image();
          image.src = "https://example.org/image.png";
          document.body.append(script, image);
          fetch("https://example.org/").catch(() => {});
        })"""
    )
    assert blocked == [["connect-src", "img-src", "script-src-elem"], None]
    own = (site.address, "blob:", "data:", "about:")
    assert [address for address in asked if not address.startswith(own)] == []
    site.errors[:] = [line for line in site.errors if "example.org" not in line and "inline script" not in line]
    assert site.errors == [], json.dumps(site.errors)
