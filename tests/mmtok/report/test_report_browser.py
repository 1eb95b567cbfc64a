"""The page in a real Chromium: no errors, no requests, all by keyboard, and axe has nothing to say."""

import re
import shutil
import time

import pytest

from mmtok.cli import main

pytestmark = pytest.mark.browser
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: make test-browser")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: make test-browser")
    with playwright.sync_playwright() as session:
        started = session.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--mute-audio"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(make_comparison, run, tmp_path_factory):
    """One page of everything: pictures and sounds over seeds, and a trained run with maps."""
    folder = tmp_path_factory.mktemp("browser")
    homes = [make_comparison(folder / "pictures"), make_comparison(folder / "sounds", sounds=True)]
    target = folder / "report.html"
    assert main(["report", *map(str, homes), str(run), "-o", str(target), "--items", "2"]) == 0
    assert target.stat().st_size < 10_000_000
    return target


@pytest.fixture
def page(browser, report):
    """The open page; whatever it complains of or asks for fails the test that opened it."""
    context = browser.new_context(color_scheme="light", permissions=["clipboard-read", "clipboard-write"])
    opened, wrong = context.new_page(), []
    opened.on("console", lambda said: said.type in ("error", "warning") and wrong.append(said.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "request", lambda asked: not asked.url.startswith(("file:", "blob:", "data:")) and wrong.append(asked.url)
    )
    opened.goto(report.as_uri())
    yield opened
    opened.wait_for_timeout(100)
    context.close()
    assert wrong == []


def until(holds, seconds=10):
    """The page's policy forbids what Playwright's own waiting for a condition does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_every_chart_is_drawn_and_every_picture_shown(page):
    drawn = page.eval_on_selector_all(".chart", "all => all.map(one => one.querySelectorAll('svg path').length)")
    assert len(drawn) == 6
    assert min(drawn) > 3
    assert page.eval_on_selector_all("img", "all => all.every(one => one.naturalWidth > 0)")
    assert page.locator("#verdict li").first.inner_text().startswith("PSNR")


def test_a_slider_moves_by_the_arrow_keys(page):
    pair = page.locator(".pair").first
    pair.locator("input").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert pair.evaluate("one => one.style.getPropertyValue('--cut')") == "55%"
    before = pair.locator(".after").evaluate("one => getComputedStyle(one).clipPath")
    page.keyboard.press("Home")
    assert pair.locator(".after").evaluate("one => getComputedStyle(one).clipPath") != before


def test_a_slider_follows_the_pointer(page):
    pair = page.locator(".pair").first
    pair.scroll_into_view_if_needed()
    box = pair.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 20)
    assert pair.evaluate("one => one.style.getPropertyValue('--cut')") == "25%"


def test_a_table_sorts_by_the_keyboard_and_copies_what_is_seen(page):
    table = page.locator(".table", has=page.locator("h3", has_text="pictures: Distortion"))
    head = table.locator("th").nth(1)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    names = [name.strip() for name in table.locator("tbody td:first-child").all_inner_texts()]
    assert names == ["none", "vq", "<b>fsq</b>"]
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    table.get_by_role("button", name=re.compile("Markdown")).focus()
    page.keyboard.press("Enter")
    table.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[0].startswith("| arm | PSNR (dB) |")
    assert copied[1].startswith("|---|---:|")
    assert copied[2].startswith("| <b>fsq</b> | 22.1 ± 1.3 (3)")


def test_players_play_by_the_keyboard_and_one_at_a_time(page):
    players = page.locator("audio")
    assert players.count() >= 4
    players.nth(0).focus()
    page.keyboard.press("Space")
    until(lambda: players.nth(0).evaluate("one => one.currentTime") > 0.05)
    players.nth(1).focus()
    page.keyboard.press("Space")
    until(lambda: not players.nth(1).evaluate("one => one.paused"))
    assert players.nth(0).evaluate("one => one.paused")


def test_a_map_tells_its_codes_by_the_arrow_keys(page):
    canvas = page.locator("canvas[data-map]").first
    told = page.locator(".maps figcaption").first
    canvas.focus()
    first = told.inner_text()
    assert re.match(r"code \d+: \d+ here, \d+ in all", first)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    before = canvas.evaluate("one => one.toDataURL()")
    page.locator("[id^=tokens-colours]").first.select_option(index=1)
    assert canvas.evaluate("one => one.toDataURL()") != before


def test_a_series_is_switched_off_by_the_keyboard(page):
    chart = page.locator("#curves-left")
    before = chart.inner_html()
    key = page.locator("[data-legend=curves] button").first
    key.focus()
    page.keyboard.press("Enter")
    assert key.get_attribute("aria-pressed") == "false"
    assert chart.inner_html() != before


def test_colours_change_by_the_keyboard_and_stay(page):
    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light, chart = paper(), page.locator("#curves-left").inner_html()
    assert page.locator("#theme").inner_text() == "Dark colours"
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert paper() != light
    assert page.locator("#theme").inner_text() == "Light colours"
    assert page.locator("#curves-left").inner_html() != chart
    dark = paper()
    page.reload()
    assert paper() == dark


def test_the_button_names_the_colours_that_the_system_does_not_have(page):
    page.emulate_media(color_scheme="dark")
    page.reload()
    assert page.locator("#theme").inner_text() == "Light colours"


def test_a_table_that_goes_on_at_the_right_shows_it(page):
    page.set_viewport_size({"width": 420, "height": 800})
    table = page.locator(".table.wide .scroll").first
    assert table.evaluate("one => one.scrollWidth > one.clientWidth")
    assert "linear-gradient" in table.evaluate("one => getComputedStyle(one).backgroundImage")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_has_nothing_to_say(page, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing: make test-browser")
    page.emulate_media(color_scheme=scheme)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found] == []


def test_a_narrow_window_scrolls_down_alone(page):
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_charts_show_one_comparison_at_a_time(page):
    chart, scope = page.locator("#curves-left"), page.locator("#curves-scope")
    before = chart.inner_html()
    assert scope.locator("option").all_inner_texts() == ["pictures", "sounds", "runs"]
    assert page.locator("[data-legend=curves] button:visible").all_inner_texts() == ["none", "vq", "<b>fsq</b>"]
    scope.select_option("runs")
    assert chart.inner_html() != before
    assert page.locator("[data-legend=curves] button:visible").all_inner_texts() == ["run"]
