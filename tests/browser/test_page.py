"""The page in a real Chromium, on a real viewer that received its spans by OTLP."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from k8s_tracing.record import EventRecord
from tests.browser.spans import ORIGIN_NS, checkout, hostile, many, send, span, trace_id
from tests.support.viewer import Viewer

CHECKOUT, SLOW, BIG, HOSTILE, SKEWED = (trace_id(number) for number in range(1, 6))
BIG_COUNT = 10_000


@pytest.fixture(scope="module")
def viewer() -> Iterator[Viewer]:
    with Viewer() as running:
        end = running.otlp_http_endpoint
        send(end, checkout(CHECKOUT))
        send(end, checkout(SLOW, charge_ms=400, coupon=True))
        send(end, many(BIG, BIG_COUNT))
        send(end, hostile(HOSTILE))
        send(
            end,
            [
                span(SKEWED, 1, 0, 100, node="n1", name="call", kind="CLIENT", service="skewed"),
                span(
                    SKEWED, 2, -30, 30, 1, node="n2", name="serve", kind="SERVER", service="skewed"
                ),
            ],
        )
        yield running


@pytest.fixture
def url(viewer: Viewer) -> str:
    return viewer.url


def rows(page: Page) -> Locator:
    return page.get_by_role("treegrid").locator("[data-span]")


def row(page: Page, name: str) -> Locator:
    return rows(page).filter(has=page.get_by_text(name, exact=True))


def open_trace(page: Page, url: str, trace: str, query: str = "") -> None:
    page.goto(f"{url}/trace/{trace}{query}")
    expect(rows(page).first).to_be_visible()


def test_search_finds_opens_and_goes_back(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Service").select_option("bank")
    page.get_by_label("Operation").select_option("charge")
    page.get_by_role("button", name="Find traces").click()
    page.wait_for_url(re.compile(r"service=bank&operation=charge"))
    expect(page.get_by_role("heading", name="2 traces")).to_be_visible()
    expect(page.locator(".trace-item").first.get_by_text("1 error")).to_be_visible()
    page.locator(f".trace-item[data-trace='{CHECKOUT}'] a").click()
    expect(row(page, "charge")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("heading", name="2 traces")).to_be_visible()
    assert page.get_by_label("Operation").input_value() == "charge"


def test_a_searchs_address_is_jaegers(page: Page, url: str) -> None:
    page.goto(f'{url}/search?service=shop&tags={{"http.route":"/checkout"}}&minDuration=500ms')
    expect(page.get_by_role("heading", name="1 trace")).to_be_visible()
    expect(page.locator(".trace-item")).to_have_attribute("data-trace", SLOW)
    assert page.get_by_label("Tags").input_value() == "http.route=/checkout"


def test_what_cannot_be_searched_for_is_said(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Min duration").fill("soon")
    page.get_by_label("Min duration").press("Enter")
    expect(page.get_by_text("Write 1.2s, 100ms or 500us.")).to_be_visible()
    page.get_by_label("Min duration").fill("")
    page.get_by_label("Tags").fill("no tag")
    page.get_by_label("Tags").press("Enter")
    expect(page.get_by_text("Tags are written key=value")).to_be_visible()
    assert "tags" not in page.url


def test_results_are_sorted_and_a_dot_opens_its_trace(page: Page, url: str) -> None:
    page.goto(f"{url}/search?service=bank")
    page.get_by_label("Sort").select_option("longest")
    expect(page.locator(".trace-item").first).to_have_attribute("data-trace", SLOW)
    assert "sort=longest" in page.url
    page.locator(f".scatter a[data-trace='{CHECKOUT}']").click()
    page.wait_for_url(re.compile(f"/trace/{CHECKOUT}"))


def test_a_new_trace_appears_without_a_reload(page: Page, viewer: Viewer) -> None:
    page.goto(f"{viewer.url}/search?service=latecomer")
    expect(page.get_by_role("heading", name="No traces")).to_be_visible()
    page.evaluate("window.sameDocument = true")
    send(viewer.otlp_http_endpoint, [span(trace_id(50), 1, 0, 5, service="latecomer")])
    expect(page.get_by_role("heading", name="1 trace")).to_be_visible()
    send(viewer.otlp_http_endpoint, [span(trace_id(51), 1, 9, 15, service="latecomer")])
    expect(page.get_by_role("heading", name="2 traces")).to_be_visible()
    expect(page.locator(".trace-item.fresh")).to_have_attribute("data-trace", trace_id(51))
    assert page.evaluate("window.sameDocument")


def test_a_link_that_is_quicker_than_its_trace(
    page: Page, viewer: Viewer, browser_says: list[str]
) -> None:
    page.goto(f"{viewer.url}/trace/{trace_id(60)}")
    expect(page.get_by_role("alert")).to_contain_text("trace not found")
    send(viewer.otlp_http_endpoint, [span(trace_id(60), 1, 0, 5, name="at last")])
    expect(row(page, "at last")).to_be_visible()
    # Chromium says on the console that the first answer was 404.
    assert all("404" in said for said in browser_says)
    browser_says.clear()


def test_a_trace_grows_before_a_readers_eyes(page: Page, viewer: Viewer) -> None:
    """Unless it is being read: then it is asked first."""
    trace = trace_id(61)
    send(viewer.otlp_http_endpoint, [span(trace, 1, 0, 5)])
    open_trace(page, viewer.url, trace)
    expect(rows(page)).to_have_count(1)
    send(viewer.otlp_http_endpoint, [span(trace, 2, 1, 4, 1)])
    expect(rows(page)).to_have_count(2)
    row(page, "step 2").click()
    send(viewer.otlp_http_endpoint, [span(trace, 3, 2, 3, 1)])
    page.get_by_text("1 more span arrived").get_by_role("button", name="Show").click()
    expect(rows(page)).to_have_count(3)
    expect(page.locator(".detail h2")).to_have_text("step 2")


def test_a_trace_has_its_figures_and_rows(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    facts = page.locator(".facts").inner_text()
    for fact in ("Duration\n350 ms", "Services\n3", "Depth\n4", "Total spans\n6", "1 error"):
        assert fact in facts
    names = rows(page).locator(".op").all_inner_texts()
    assert names == ["GET /checkout", "forward", "checkout", "charge", "audit", "reserve"]


def test_collapsing_hides_and_shows_errors_below(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    row(page, "forward").get_by_role("button", name="Collapse forward").click()
    expect(rows(page)).to_have_count(2)
    expect(row(page, "forward")).to_have_attribute("aria-expanded", "false")
    row(page, "forward").get_by_role("button", name="1 error below").click()
    expect(row(page, "charge")).to_be_focused()
    page.get_by_role("button", name="Collapse one level").click()
    expect(rows(page)).to_have_count(3)
    page.get_by_role("button", name="Collapse all").click()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Expand all").click()
    expect(rows(page)).to_have_count(6)


def test_details_say_everything(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    row(page, "checkout").click()
    detail = page.locator(".detail")
    for text in ("http.route", "/checkout", "cart loaded", "throttled 120 ms", "on CPU 100 ms"):
        expect(detail).to_contain_text(text)
    link = detail.get_by_role("link", name="https://shop.example/checkout?a=1")
    assert link.get_attribute("rel") == "noopener noreferrer"
    detail.get_by_text("Process").click()
    expect(detail).to_contain_text("host.name")
    assert "span=0000000000000003" in page.url
    page.reload()
    expect(page.locator(".detail")).to_contain_text("http.route")


def test_a_link_to_another_trace_is_followed(page: Page, viewer: Viewer) -> None:
    send(
        viewer.otlp_http_endpoint,
        [span(trace_id(999), 0x00F067AA0BA902B7, 0, 5, name="linked to")],
    )
    open_trace(page, viewer.url, CHECKOUT)
    row(page, "audit").click()
    page.locator(".links a").click()
    expect(row(page, "linked to")).to_be_focused()
    expect(page.locator(".detail h2")).to_have_text("linked to")


def test_find_marks_steps_and_filters(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    page.keyboard.press("/")
    page.keyboard.type("bank")
    expect(page.locator(".row.found")).to_have_count(1)
    expect(page.locator(".find .count")).to_have_text("1")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Only matches").click()
    assert rows(page).locator(".op").all_inner_texts() == [
        "GET /checkout",
        "forward",
        "checkout",
        "charge",
    ]
    assert "uiFind=bank" in page.url
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(6)


def test_the_rows_are_a_tree_for_the_keyboard(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    rows(page).first.focus()
    page.keyboard.press("ArrowDown")
    expect(row(page, "forward")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(row(page, "forward")).to_have_attribute("aria-expanded", "false")
    expect(row(page, "forward")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(row(page, "checkout")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".detail h2")).to_have_text("checkout")
    page.keyboard.press("Enter")
    expect(page.locator(".detail")).to_have_count(0)
    page.keyboard.press("End")
    expect(row(page, "reserve")).to_be_focused()
    page.keyboard.press("e")
    expect(row(page, "charge")).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_rows_have_a_screen_readers_roles(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    grid = page.get_by_role("treegrid", name="Spans")
    expect(grid).to_have_attribute("aria-rowcount", "6")
    charge = row(page, "charge")
    expect(charge).to_have_attribute("aria-level", "4")
    assert charge.get_attribute("aria-expanded") is None
    assert "error" in charge.inner_text()
    assert "unfinished" in row(page, "reserve").inner_text()


def test_zoom_by_the_minimap_and_by_keys(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    box = page.locator(".picture").bounding_box()
    assert box
    y = box["y"] + 30
    page.mouse.move(box["x"] + box["width"] * 0.25, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=4)
    page.mouse.up()
    expect(page.locator(".axis-time .marks span").first).to_have_text(re.compile(r"^8[678]"))
    assert "view=" in page.url
    shown = page.url
    page.reload()
    expect(page.locator(".axis-time .marks span").first).to_have_text(re.compile(r"^8[678]"))
    assert page.url == shown
    page.keyboard.press("ArrowUp")
    assert page.url != shown
    page.get_by_role("button", name="Reset zoom").click()
    expect(page.locator(".axis-time .marks span").first).to_have_text("0")
    assert "view=" not in page.url


def test_the_critical_path_is_drawn(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    expect(row(page, "charge").locator(".path")).to_have_count(1)
    expect(row(page, "audit").locator(".path")).to_have_count(0)
    page.keyboard.press("c")
    expect(page.locator(".path")).to_have_count(0)


def test_a_busy_span_is_few_elements(page: Page, viewer: Viewer) -> None:
    """Of ten thousand calls and events in one span, a row shows no more than it has pixels."""
    trace, count = trace_id(70), 10_000
    events = tuple(EventRecord(f"event {i}", ORIGIN_NS + i * 100_000) for i in range(count))
    root = span(trace, 1, 0, count / 10, events=events)
    calls = [span(trace, n, n / 10, n / 10 + 0.05, 1, name="call") for n in range(2, count)]
    send(viewer.otlp_http_endpoint, [root, *calls])
    open_trace(page, viewer.url, trace)
    page.get_by_role("button", name="Collapse all").click()
    expect(rows(page)).to_have_count(1)
    expect(page.locator(".path-summary .badge")).to_have_count(1)
    assert 0 < page.locator(".event").count() <= 1280
    assert 0 < page.locator(".path").count() <= 1280
    page.goto(f"{viewer.url}/trace/{trace}...{CHECKOUT}")
    expect(page.locator(".compare-row.only-a").first).to_be_visible()
    assert 0 < page.locator(".bar").count() <= 1280


def test_where_the_time_went_is_in_the_bar(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    widths = (
        row(page, "checkout")
        .locator(".part")
        .evaluate_all(
            "(parts) => parts.map((part) => [part.className.split(' ')[1], parseFloat(part.style.width)])"
        )
    )
    assert [name for name, _ in widths] == ["running", "waiting", "throttled", "blocked"]
    # of the span's 270 ms
    assert [round(width) for _, width in widths] == [37, 7, 44, 4]
    expect(page.locator(".legend")).to_contain_text("throttled")
    expect(row(page, "reserve").locator(".bar.unfinished")).to_be_visible()


def test_differing_clocks_are_said_and_only_then_moved(page: Page, url: str) -> None:
    open_trace(page, url, SKEWED)
    expect(page.locator(".notice.skew")).to_contain_text("1 span starts before its parent")
    expect(row(page, "serve").get_by_text("starts 30 ms before its parent")).to_be_attached()
    assert rows(page).locator(".op").all_inner_texts() == ["call", "serve"]
    duration = page.locator(".facts .fact", has_text="Duration")
    expect(duration).to_contain_text("130 ms")
    page.get_by_role("button", name="Adjust clocks").click()
    expect(page.locator(".notice.skew")).to_contain_text("n2 by 50 ms later")
    expect(page.locator(".axis-time .marks span").last).to_have_text("100 ms")
    page.get_by_role("button", name="Show as recorded").click()
    expect(page.locator(".axis-time .marks span").last).to_have_text("130 ms")


def test_ten_thousand_spans_scroll_as_few_do(page: Page, url: str) -> None:
    open_trace(page, url, BIG)
    expect(page.locator(".facts")).to_contain_text("10,000")
    scroller = page.locator(".scroller")
    heights = scroller.evaluate("(node) => [node.scrollHeight, node.clientHeight]")
    assert heights[0] >= BIG_COUNT * 28
    most = heights[1] // 28 + 20
    frames = scroller.evaluate(
        """async (node) => {
            const counts = [];
            for (let step = 1; step <= 40; step++) {
                node.scrollTop = (node.scrollHeight * step) / 40;
                await new Promise(requestAnimationFrame);
                counts.push(node.querySelectorAll('[role="row"]').length);
            }
            return counts;
        }"""
    )
    assert len(frames) == 40
    assert 0 < min(frames) <= max(frames) <= most
    last = rows(page).last
    expect(last).to_have_attribute("aria-rowindex", str(BIG_COUNT))
    last.focus()
    page.keyboard.press("Home")
    expect(rows(page).first).to_be_focused()
    expect(rows(page).first).to_have_attribute("aria-rowindex", "1")
    page.keyboard.press("e")
    expect(page.locator(":focus")).to_have_class(re.compile("has-error"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/search?limit=50", f".trace-item[data-trace='{HOSTILE}']"),
        (f"/trace/{HOSTILE}?span=0000000000000001", ".detail"),
        (f"/trace/{HOSTILE}...{CHECKOUT}", ".compare-row.only-a"),
    ],
)
def test_nothing_of_a_span_runs(page: Page, url: str, path: str, shown: str) -> None:
    page.goto(f"{url}{path}")
    expect(page.locator(shown)).to_contain_text("<script>window.hacked=1</script>")
    assert page.locator("img, script:not([src]), iframe, [onerror], [onload]").count() == 0
    # What markup would have started has had the time to.
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None


def test_only_http_becomes_a_link(page: Page, url: str) -> None:
    open_trace(page, url, HOSTILE, "?span=0000000000000001")
    detail = page.locator(".detail")
    expect(detail).to_contain_text("javascript:window.hacked=1")
    hrefs = detail.locator("a").evaluate_all("(links) => links.map((link) => link.protocol)")
    assert hrefs
    assert set(hrefs) <= {"http:", "https:"}


def test_the_policy_stops_what_would_get_through(
    page: Page, url: str, browser_says: list[str]
) -> None:
    policy = requests.get(url, timeout=20).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    page.goto(url)
    failing = "() => { try { %s; } catch (error) { return error.name; } return 'done'; }"
    script = "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
    assert page.evaluate(failing % script) == "TypeError"
    assert page.evaluate(failing % "document.body.innerHTML = '<b>x'") == "TypeError"
    fetched = "fetch('https://example.com/').then(() => 'fetched', () => 'refused')"
    assert page.evaluate(fetched) == "refused"
    assert page.evaluate("window.hacked") is None
    assert all("Security Policy" in said or "Trusted" in said for said in browser_says)
    assert browser_says
    browser_says.clear()


def test_two_traces_are_compared(page: Page, url: str) -> None:
    page.goto(f"{url}/search?service=bank")
    for trace in (CHECKOUT, SLOW):
        page.locator(f".trace-item[data-trace='{trace}'] input").check()
    page.get_by_role("link", name="Compare these two").click()
    page.wait_for_url(f"{url}/trace/{CHECKOUT}...{SLOW}")
    charge = page.locator(".compare-row", has_text="charge")
    expect(charge).to_contain_text("+310 ms")
    expect(page.locator(".compare-row.only-b")).to_contain_text("coupon")
    expect(page.locator(".badge.verdict.only-b")).to_have_text("1 only in B")
    page.get_by_label("Differences only").check()
    expect(page.locator(".compare-row", has_text="audit")).to_have_count(0)
    page.get_by_role("button", name="Swap").click()
    page.wait_for_url(f"{url}/trace/{SLOW}...{CHECKOUT}")
    expect(page.locator(".compare-row.only-a")).to_contain_text("coupon")


def test_dependencies_are_drawn_and_listed(page: Page, url: str) -> None:
    page.goto(f"{url}/dependencies")
    expect(page.get_by_role("row", name="ingress shop 2")).to_be_visible()
    expect(page.get_by_role("row", name="shop bank 2")).to_be_visible()
    page.get_by_role("link", name="bank").click()
    page.wait_for_url(f"{url}/search?service=bank")
    expect(page.get_by_role("heading", name="2 traces")).to_be_visible()


def background(page: Page) -> int:
    """How light the page's background is, from 0 to 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(map(int, re.findall(r"\d+", color)[:3]))


def test_light_and_dark(page: Page, url: str) -> None:
    open_trace(page, url, CHECKOUT)
    assert background(page) > 200
    page.emulate_media(color_scheme="dark")
    assert background(page) < 60
    page.get_by_role("button", name="Switch between light and dark").click()
    assert background(page) > 200
    page.reload()
    assert background(page) > 200


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Page, url: str) -> None:
    page.set_viewport_size({"width": 400, "height": 700})
    for path in (
        "/search",
        f"/trace/{CHECKOUT}?span=0000000000000003",
        f"/trace/{CHECKOUT}...{SLOW}",
    ):
        page.goto(f"{url}{path}")
        page.locator(".trace-item, [data-span], .compare-row").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_nothing_is_asked_of_another_origin(page: Page, url: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in ("/search", f"/trace/{CHECKOUT}", "/dependencies"):
        page.goto(f"{url}{path}")
        page.locator(".trace-item, [data-span], .graph").first.wait_for()
    assert asked
    assert [one for one in asked if not one.startswith(url)] == []


def test_a_lookup_of_an_id(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Trace ID").fill(CHECKOUT)
    page.get_by_label("Trace ID").press("Enter")
    expect(row(page, "charge")).to_be_visible()
