"""The explorer, the runs, and what holds of every page: dark, narrow, named, and nothing from elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
from written_runs import add_epoch

from conftest import Site
from overtone.reports.explorer import points
from overtone.serving.explorer_file import explorer_html

pytestmark = pytest.mark.browser

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
    page.get_by_label("Against").select_option("parameters")
    mark = page.locator(".mark[data-name='hbonet_x100.dli14_in1k']")
    mark.focus()
    assert "4.56 M parameters" in page.locator(".tip").inner_text()
    mark.press("Enter")
    assert page.locator(".command code").inner_text() == "overtone predict hbonet_x100.dli14_in1k image.jpg"
    page.get_by_label("Score").select_option("top-1 on photos")
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
