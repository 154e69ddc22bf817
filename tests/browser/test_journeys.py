"""What a user does in the dashboards, done in a real Chromium with every address outside this machine refused."""

from __future__ import annotations

import re

import pytest
from browser_support import Visit, browsing, settled

pytestmark = pytest.mark.timeout(300)


def main(page) -> str:
    """What the page says, with plain blanks."""
    return page.locator("[data-testid=stMain]").inner_text().replace("\u00a0", " ")


def title(page) -> str:
    return page.locator("h1").inner_text().replace("\u00a0", " ")


def choose(page, label: str, option: str) -> None:
    """Pick from a select box."""
    page.get_by_role("combobox", name=re.compile(label)).first.click()
    page.get_by_role("option", name=option, exact=True).click()
    settled(page)


def param(page, name: str) -> str:
    return page.evaluate("name => new URL(location.href).searchParams.get(name)", name)


def frame_slider(page):
    return page.locator("[data-testid=stSlider]").filter(has_text="Frame").get_by_role("slider").first


def test_open(go):
    page = go()
    assert "blue cross" in title(page) and "of the influence" in title(page)
    assert page.locator("h1 bdi, .prompt bdi").count() >= 2
    assert page.locator(".js-plotly-plot .main-svg").count() > 0
    assert {"Overview", "Maps", "Flow", "Compare", "Balance", "Runs", "Flow lab"} <= set(
        page.locator("[data-testid=stSidebarNav] a").all_inner_texts()
    )


def test_scrub_frames(go):
    page = go("maps")
    first = page.locator("[data-testid=stMain] img").first.get_attribute("src")
    for _ in range(3):
        frame_slider(page).press("ArrowRight")
    page.wait_for_function("new URL(location.href).searchParams.get('frame') === '3'")
    settled(page)
    assert page.locator("[data-testid=stMain] img").first.get_attribute("src") != first


def test_switch_method(go):
    page = go()
    before = title(page)
    choose(page, "Method", "Widest path")
    assert title(page) != before and "of the influence" in title(page)
    assert param(page, "method") == "Widest path"


def test_read_the_certificate(go):
    page = go("flow")
    page.get_by_text("The certificate").wait_for()
    assert "Gap 0: flow and cut agree to the last digit" in main(page)
    rows = page.locator("[data-testid=stMain] table tbody tr").all_inner_texts()
    assert len(rows) == 2 and any("blue cross" in row for row in rows)
    assert page.locator(".sankey-link").count() > 5


def test_balance_live_to_the_end(go):
    page = go("balance")
    page.get_by_label("Steps").fill("8")
    page.get_by_label("Steps").press("Tab")
    page.get_by_role("button", name="Run both").click()
    page.get_by_role("button", name="Cancel").wait_for()
    assert page.get_by_role("button", name="Run both").is_disabled()
    page.get_by_text("What it cost").wait_for(timeout=240_000)
    settled(page)
    told = main(page)
    assert "of the influence before" in told and "Ring: plain run. Disc: balanced run" in told
    assert page.get_by_role("button", name="Log as CSV").is_visible()
    # Both rows of maps share one frame slider, so that the videos stay linked.
    maps = page.locator(".js-plotly-plot").first
    pictures = maps.locator("image")
    before = [
        pictures.nth(i).get_attribute("xlink:href") or pictures.nth(i).get_attribute("href") for i in range(pictures.count())
    ]
    rail = maps.locator(".slider-rail-touch-rect")
    rail.scroll_into_view_if_needed()
    box = rail.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(800)
    after = [
        pictures.nth(i).get_attribute("xlink:href") or pictures.nth(i).get_attribute("href") for i in range(pictures.count())
    ]
    assert len(before) == len(after) >= 6 and before != after
    assert maps.locator(".slider-label").first.text_content().strip().endswith("7")


def test_cancel_a_run(go):
    page = go("balance?prompt=a+red+circle+moving+right+and+a+blue+square+moving+up")
    page.get_by_label("Steps").fill("60")
    page.get_by_label("Steps").press("Tab")
    page.get_by_role("button", name="Run both").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("The run was cancelled.").wait_for(timeout=120_000)
    settled(page)
    assert page.get_by_role("button", name="Run both").is_enabled()


def test_solve_an_exercise_of_the_flow_lab(go):
    page = go("flow_lab")
    choose(page, "Exercise", "Take a step back")
    page.get_by_label(re.compile("Predict")).fill("0.9")
    page.get_by_role("button", name="Fix the prediction").click()
    for left in ("0.5", "0.4"):
        page.get_by_text(f"can carry {left} more").wait_for()
        page.get_by_role("button", name="Push this path").click()
    page.get_by_text("Solved with 2 paths: the maximum flow is 0.9, as you predicted.").wait_for()
    settled(page)
    assert "The minimum cut is a1 → a2 (0.4), b2 → b3 (0.5), 0.9 in all." in main(page)
    assert param(page, "exercise") == "Take a step back"


def labels(page) -> list[str]:
    """Numbers on the edges of the drawing."""
    return page.locator(".js-plotly-plot .annotation-text").all_text_contents()


def test_edit_a_capacity(go):
    page = go("flow_lab")
    assert labels(page).count("0 / 0.4") == 1
    cell = page.locator("[data-testid=stDataFrame] canvas").first.bounding_box()
    page.mouse.click(cell["x"] + cell["width"] - 40, cell["y"] + 35 * 3.5)  # third row of the last column
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    page.keyboard.press("Control+a")
    page.keyboard.type("0.15", delay=50)
    page.wait_for_timeout(300)
    page.keyboard.press("Enter")
    page.locator(".annotation-text", has_text="0 / 0.15").wait_for(state="attached")
    assert "0 / 0.4" not in labels(page)


def test_open_a_second_trace_by_path(go):
    page = go()
    page.get_by_text("Open another trace").click()
    page.get_by_label("Path", exact=True).fill("second.zarr")
    page.get_by_role("button", name="Open path").click()
    page.locator("[data-testid=stMain]").get_by_text("red circle").first.wait_for()
    settled(page)
    assert "blue square" in main(page) and "purple circle" not in main(page)
    assert param(page, "trace") == "second.zarr"


def test_a_path_outside_is_refused(go):
    page = go()
    page.get_by_text("Open another trace").click()
    page.get_by_label("Path", exact=True).fill("../../etc/passwd")
    page.get_by_role("button", name="Open path").click()
    page.get_by_text("lies outside the folders").wait_for()
    assert "purple circle" in main(page)


def test_a_link_brings_back_the_view(go, browser):
    page = go("maps?trace=demo-balanced")
    frame_slider(page).press("End")
    page.wait_for_function("new URL(location.href).searchParams.get('frame') === '7'")
    settled(page)
    choose(page, "Head", "1")
    seen, address = main(page), page.url
    assert "frame=7" in address and "head=1" in address and "trace=demo-balanced" in address
    with browsing(browser) as context:
        other = Visit.of(context)
        other.page.goto(address)
        settled(other.page)
        assert main(other.page) == seen
        assert frame_slider(other.page).input_value() == "7"
        assert other.outside == []


def test_runs_compare_conditions_and_show_one(go):
    page = go("runs")
    assert "all correct" in title(page) + main(page)
    assert page.locator("[data-testid=stMain] [data-testid=stImage] img").count() == 1
    page.get_by_role("textbox", name="Folder of a sweep").fill("nowhere")
    page.get_by_role("textbox", name="Folder of a sweep").press("Enter")
    page.get_by_text("This sweep cannot be read.").wait_for()


def test_dark_pages_have_dark_figures(browser, served):
    with browsing(browser, theme="dark") as context:
        dark = Visit.of(context)
        dark.page.goto(f"{served.address}/flow_lab")
        settled(dark.page)
        paper = dark.page.locator(".js-plotly-plot .main-svg").first.evaluate("node => getComputedStyle(node).backgroundColor")
        app = dark.page.locator("[data-testid=stApp]").evaluate("node => getComputedStyle(node).backgroundColor")
        assert paper == app == "rgb(21, 24, 29)"
        assert dark.outside == [] and dark.complaints == []
