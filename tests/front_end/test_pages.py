"""The web console's pages in a real browser, in front of a stand-in for the server."""

import re
import time

import pytest

from tests.fakes.console import states
from tests.fakes.console.server import FakeConsole
from tests.front_end.conftest import WAIT_LIMIT_MS
from tests.front_end.pages import Open, Serve, eventually, serious, shows

pytestmark = pytest.mark.slow

PAGES = {
    "gpus": "node00/0",
    "graph": "critical path",
    "load": "Accuracy served",
    "plan": "What each requirement costs",
    "events": "newest first",
    "logs": "lines",
    "traces": "waiting in the queue",
}
"""Page -> text that it shows once its data is there."""

MARKUP = "<img src=x onerror=\"document.title='broken'\"><b>&amp;"


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_its_data_without_serious_faults_of_accessibility(
    name: str, phone: bool, dark: bool, console: FakeConsole, opened: Open
) -> None:
    page = opened(console, name, phone=phone, dark=dark)
    shows(page, PAGES[name])
    assert page.get_by_role("link", name=re.compile(f"^{name}$", re.IGNORECASE)).get_attribute("aria-current") == "page"
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_swap_is_watched(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    gpu = console.state["gpus"]["node00/1"]
    old, new = "node00-1-0", "node00-1-0b"
    page.get_by_role("button", name="slice 4g at 0 of GPU node00/1, ready").wait_for()
    stages = ["drain the old slice", "create the new slice", "load yolov5s", "route"]
    moves = [{"gpu": "node00/1", "kind": "drain", "worker": old}]
    console.patch({"change": {"from": 7, "to": 8, "why": "demand fell", "stages": stages, "at": 0, "moves": moves}})
    page.get_by_role("button", name="slice 4g at 0 of GPU node00/1, draining").wait_for()
    shows(page, "stage 1 of 4")
    swapped = [{**gpu["slices"][0], "slice": "3g", "worker": new}, gpu["slices"][1]]
    console.patch(
        {
            "gpus": {"node00/1": {"slices": swapped}},
            "workers": {
                old: None,
                new: states.worker("detect", "node00/1", "3g", 0, state="loading", variant="yolov5s"),
            },
            "change": {"at": 2, "moves": [{"gpu": "node00/1", "kind": "load", "worker": new}]},
        }
    )
    page.get_by_role("button", name=re.compile("detect yolov5s.*slice 3g at 0 of GPU node00.1, loading")).wait_for()
    shows(page, "stage 3 of 4")
    console.patch({"change": None, "workers": {new: {"state": "ready"}}, "deployment": {"generation": 8}})
    page.get_by_role("button", name="slice 3g at 0 of GPU node00/1, ready").wait_for()
    page.get_by_text("stage 3 of 4").wait_for(state="detached")
    shows(page, re.compile(r"^generation 8$"))


def test_workers_that_share_a_slice_are_shown_together(serve: Serve, opened: Open) -> None:
    state = states.state()
    shared = "node00-0-0-p2"
    state["workers"][shared] = states.worker("cars", "node00/0", "3g", 0, state="loading")
    console = serve(state)
    page = opened(console)
    piece = page.get_by_role("button", name=re.compile("cars efficientnet-b2, slice 3g at 0 of GPU node00.0, loading"))
    piece.click()
    card = page.get_by_role("dialog", name=f"node00-0-0, {shared}")
    for task in ("detect", "cars"):
        card.get_by_text(task, exact=True).wait_for()
    card.get_by_text(f"jigsaw-triton logs node00-0-0 {shared}").wait_for()
    assert card.get_by_role("link", name="Log").count() == 0
    # A worker of the controller's own machine has its log here.
    console.patch({"nodes": {"node00": {"agent": None}}})
    card.get_by_role("link", name=f"Log of {shared}").click()
    page.get_by_role("link", name=f"Worker {shared} on its GPU").click()
    page.get_by_role("tooltip", name=f"node00-0-0, {shared}").wait_for()


def test_a_thousand_gpus_are_grouped_or_drawn_as_far_as_they_are_visible(serve: Serve, opened: Open) -> None:
    page = opened(serve(states.state(1000)))
    page.get_by_role("button", name="167 alike: show all GPUs like node00/0").wait_for()
    assert page.locator(".board").count() == len(states.LAYOUTS)
    page.get_by_role("button", name="Every GPU").click()
    page.get_by_label("GPU node00/0", exact=True).wait_for()
    assert page.locator(".board").count() < 150
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.get_by_label("GPU node124/7", exact=True).wait_for()
    assert page.locator(".board").count() < 150
    page.get_by_label("Find").fill("node77/3")
    page.get_by_label("GPU node77/3", exact=True).wait_for()
    assert page.locator(".board").count() == 1


def test_the_standby_gateway_and_the_nodes_are_shown(serve: Serve, opened: Open) -> None:
    state = states.state(32)
    state["standby_gateway"] = {
        "node": "node01",
        "state": "ready",
        "in_line": False,
        "since": time.time() - 90,
        "failure": "no space left on device",
        "http": "10.0.0.2:8000",
        "grpc": "10.0.0.2:8001",
    }
    state["nodes"]["node02"] |= {"state": "cordoned", "cordoned": True}
    state["workers"][state["nodes"]["node02"]["workers"][0]]["state"] = "draining"
    state["nodes"]["node03"] |= {"state": "agent away"}
    console = serve(state, allow_changes=True)
    page = opened(console, "gpus?show=single")
    line = page.locator(".machines summary")
    for text in ("Gateway ready", "node01 ready, not in sync", "2 ready", "node02 draining", "node03 agent away"):
        line.filter(has_text=text).wait_for()
    for text, gpu in (("draining", "node02/0"), ("agent away", "node03/0")):
        page.get_by_label("Find").fill(text)
        page.get_by_label(f"GPU {gpu}").get_by_text(text, exact=True).first.wait_for()
    line.click()
    shows(page, "The standby gateway does not follow: no space left on device")
    nodes = page.get_by_role("region", name="Nodes")
    nodes.get_by_role("row", name=re.compile("node01 ready rack r0 8.H100-80GB")).wait_for()
    nodes.get_by_role("row", name=re.compile("node02 draining")).get_by_role("button", name="Uncordon").click()
    page.get_by_role("dialog").get_by_role("button", name="Uncordon").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    assert console.asked == [("change/uncordon", {"node": "node02"})]
    assert serious(page) == []
    console.patch({"standby_gateway": {"in_line": True, "failure": None}, "nodes": {"node02": {"state": "lost"}}})
    line.filter(has_text="node01 ready, in sync").wait_for()
    line.filter(has_text="node02 lost").wait_for()
    nodes.get_by_role("row", name=re.compile("node02 lost ?cordoned")).wait_for()


def test_a_task_may_be_named_outputs(serve: Serve, opened: Open) -> None:
    state = states.state(2)
    graph = state["graphs"]["traffic"]
    graph["tasks"]["outputs"] = graph["tasks"].pop("cars")
    graph["critical_path"] = ["detect", "outputs"]
    for edge in graph["edges"]:
        edge |= {end: "outputs" for end in ("from", "to") if edge[end] == "cars"}
    page = opened(serve(state), "graph")
    shows(page, "critical path: detect → outputs")
    assert page.locator(".node.task").count() == 3
    assert page.locator(".node.end").all_inner_texts()[1].split() == ["outputs", "MAKE,", "PERSON"]


def test_an_explanation_that_failed_is_tried_again(console: FakeConsole, opened: Open) -> None:
    console.explain_error = "the planner did not answer within 600 s"
    page = opened(console, "plan")
    shows(page, re.compile("The plan is not explained: the planner did not answer"))
    page.get_by_role("button", name="Try again").click()
    shows(page, PAGES["plan"])
    page.get_by_text("The plan is not explained").wait_for(state="detached")


def test_energy_is_shown_where_it_is_known(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "load")
    shows(page, "Accuracy served")
    assert page.get_by_text("joules a request").count() == 0
    console.push("sample", {**states.sample(time.time() + 1), "joules_per_request": 3.25})
    page.get_by_role("img", name=re.compile("joules a request.*energy 3.25")).wait_for()
    shows(page, "3.25 J")


def test_a_lost_connection_comes_back(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    shows(page, "serving")
    console.stop()
    shows(page, re.compile("Connection lost. Stale since"))
    console.state = {**console.state, "deployment": {**console.state["deployment"], "generation": 9}}
    console.start()
    shows(page, re.compile(r"^generation 9$"))
    page.get_by_text("Connection lost").wait_for(state="detached")


def test_the_page_says_since_when_no_controller_answers(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    shows(page, "serving")
    console.push("stale", {"since": time.time() - 30})
    shows(page, re.compile("Stale since .*No controller answers"))
    console.push("stale", {"since": None})
    page.get_by_text("No controller answers").wait_for(state="detached")


def test_what_was_stale_before_a_connection_was_lost_is_not_so_after_it(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    shows(page, "serving")
    console.push("stale", {"since": time.time() - 30})
    shows(page, re.compile("No controller answers"))
    console.stop()
    shows(page, "Connection lost")
    console.start()
    page.get_by_text("Connection lost").wait_for(state="detached")
    assert page.get_by_text("No controller answers").count() == 0


def test_a_connection_that_says_nothing_is_replaced(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    page.clock.install()
    page.reload()
    shows(page, "serving")
    console.state = {**console.state, "deployment": {**console.state["deployment"], "generation": 9}}
    page.clock.fast_forward(30_000)
    shows(page, re.compile(r"^generation 9$"))


def test_a_page_that_nobody_sees_gives_its_connection_back(console: FakeConsole, opened: Open) -> None:
    def see(hidden: str) -> None:
        page.evaluate(f"() => void Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}})")
        page.evaluate("() => void document.dispatchEvent(new Event('visibilitychange'))")

    page = opened(console)
    page.clock.install()
    page.reload()
    shows(page, "serving")
    see("true")
    page.clock.fast_forward(15_000)
    give_up_at = time.monotonic() + WAIT_LIMIT_MS / 1000
    while console.streams > 0:
        # A server notices the end of a connection when it writes.
        console.patch({"deployment": {"generation": 9}})
        assert time.monotonic() < give_up_at
    see("false")
    shows(page, re.compile(r"^generation 9$"))
    assert console.streams == 1


def test_a_session_that_is_over_says_what_to_do(console: FakeConsole, opened: Open) -> None:
    console.signed_out = True
    page = opened(console)
    shows(page, "The session has ended")


def test_emulated_parts_are_named(console: FakeConsole, opened: Open) -> None:
    shows(opened(console), re.compile("instances exist only in a state file"))


def test_the_keyboard_alone_is_enough(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    page.get_by_role("button", name="slice 3g at 0 of GPU node00/0").wait_for()
    focused = "document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"
    for _ in range(40):
        page.keyboard.press("Tab")
        if "slice 3g at 0 of GPU node00/0" in page.evaluate(focused):
            break
    page.get_by_role("tooltip").wait_for()
    page.keyboard.press("ArrowRight")
    eventually(page, f"({focused}).includes('slice 2g at 4 of GPU node00/0')")
    page.keyboard.press("Enter")
    page.get_by_role("dialog", name="node00-0-4").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    eventually(page, f"({focused}).includes('slice 2g at 4 of GPU node00/0')")
    page.keyboard.press("End")
    eventually(page, f"({focused}).includes('of GPU node01/3')")
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        if page.evaluate(focused) == "Traces":
            break
    page.keyboard.press("Enter")
    shows(page, PAGES["traces"])


def test_names_with_markup_are_shown_as_they_are(serve: Serve, opened: Open) -> None:
    state = states.state(2)
    state["graphs"] = {MARKUP: state["graphs"]["traffic"]}
    state["graphs"][MARKUP]["critical_path"] = [MARKUP]
    state["graphs"][MARKUP]["tasks"] = {MARKUP: state["graphs"][MARKUP]["tasks"]["detect"]}
    state["graphs"][MARKUP]["edges"] = [
        {"from": "inputs", "to": MARKUP, "tensors": [MARKUP], "when": MARKUP, "rate_rps": 1.0}
    ]
    state["workers"]["node00-0-0"]["models"][0] |= {"graph": MARKUP, "task": MARKUP, "variant": MARKUP}
    state["deployment"] |= {"degraded": True, "reasons": [MARKUP], "error": MARKUP}
    console = serve(state)
    console.events = [states.event(1, MARKUP, MARKUP)]
    for name in ("gpus", "graph", "plan", "events"):
        page = opened(console, name)
        shows(page, MARKUP)
        assert page.locator("main img").count() == 0
        assert "broken" not in page.title()


def test_what_if_shows_the_difference(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "plan")
    slider = page.get_by_role("slider", name="demand")
    slider.focus()
    page.keyboard.press("ArrowRight")
    shows(page, "detect: 1 more 3g with yolov5m")
    name, asked = console.asked[-1]
    assert name == "whatif"
    assert asked["demand"]["traffic"] > 420
    assert asked["gpus"] is None
    page.keyboard.press("End")
    shows(page, re.compile("are needed"))


def test_sliders_stay_while_the_plan_is_explained(console: FakeConsole, opened: Open) -> None:
    console.explaining = True
    page = opened(console, "plan")
    slider = page.get_by_role("slider", name="demand")
    slider.focus()
    page.keyboard.press("ArrowRight")
    shows(page, "detect: 1 more 3g with yolov5m")
    console.explaining = False
    page.get_by_role("heading", name=PAGES["plan"]).wait_for()
    assert console.plans_read > 1
    assert slider.input_value() == "1"
    shows(page, "detect: 1 more 3g with yolov5m")


def test_a_plan_change_is_a_mark_that_can_be_chosen(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "load")
    page.get_by_role("button", name=re.compile("Generation 7 at")).click()
    shows(page, "demand of traffic rose to 420/s")
    page.get_by_role("link", name="Events of generation 7").click()
    page.get_by_role("heading", name="Events").wait_for()
    assert page.get_by_label("Text").input_value() == "generation 7"


def test_samples_move_the_charts(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "load")
    shows(page, "Accuracy served")
    figures = states.sample(time.time() + 1)
    figures["graphs"]["traffic"]["arrivals_rps"] = 777.0
    console.push("sample", figures)
    page.get_by_role("img", name=re.compile("arrivals 777")).wait_for()
    assert page.locator(".plot canvas").count() == 4


def test_events_arrive_and_are_filtered(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "events")
    shows(page, "newest first")
    console.push("event", states.event(451, "profile_drift", "yolov5m is 40% slower than its profile", time.time()))
    shows(page, "yolov5m is 40% slower than its profile")
    page.get_by_label("Kind").select_option("worker_died")
    eventually(page, "[...document.querySelectorAll('.events .chip')].every((c) => c.textContent === 'worker_died')")
    assert page.locator(".events li").count() == 90
    page.get_by_label("Kind").select_option("")
    page.get_by_role("button", name="Older events").click()
    eventually(page, "document.querySelectorAll('.events li').length > 300")
    page.locator(".events").get_by_role("link", name="node00-1-4").first.click()
    page.get_by_role("heading", name="GPUs").wait_for()


def test_workers_and_generations_in_a_text_are_links(serve: Serve, opened: Open) -> None:
    state = states.state(2)
    state["workers"]["n-0-1g+me-0"] = state["workers"]["node00-1-4"]
    console = serve(state)
    console.events = [states.event(1, "lost", "n-0-1g+me-0 of generation 7 replaces node00-1-4.", time.time())]
    page = opened(console, "events")
    for name in ("n-0-1g+me-0", "generation 7", "node00-1-4"):
        page.locator(".events").get_by_role("link", name=name, exact=True).wait_for()


def test_ten_thousand_events_do_not_fill_the_page(console: FakeConsole, opened: Open) -> None:
    page = opened(console, "events")
    shows(page, "newest first")
    for number in range(451, 1951):
        console.push("event", states.event(number, "restart", f"event {number}", time.time()))
    shows(page, re.compile("^event 1950$"))
    assert page.locator(".events li").count() <= 1200


def test_a_change_is_asked_for_with_the_token(serve: Serve, opened: Open) -> None:
    console = serve(states.state(), allow_changes=True)
    page = opened(console)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    page.get_by_role("dialog").wait_for(state="hidden")
    assert console.asked == [("change/pause", {})]


def test_a_console_that_only_reads_offers_no_change(console: FakeConsole, opened: Open) -> None:
    page = opened(console)
    shows(page, "serving")
    assert page.get_by_role("button", name="Pause").count() == 0
