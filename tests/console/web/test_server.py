"""The console as a browser sees it."""

import asyncio
import json
from typing import Any

import pytest

from jigsaw_triton.console.web import server as module
from jigsaw_triton.console.web.guard import CSRF_HEADER
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from tests.console.test_trace import FIRST, RUN, SECOND, write
from tests.console.web.conftest import Visit, Visiting, kept
from tests.fakes.live import event, frames
from tests.waiting import WAIT_LIMIT_S

API = ("session", "stream", "history", "events", "servers", "logs?server=gateway", "traces", "traces/x", "plan")
PASSWORD = "correct horse battery"


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/nowhere", *(f"/api/{name}" for name in API)])
def test_nothing_is_shown_without_a_session(visiting: Visiting, path: str) -> None:
    async def ask(visit: Visit) -> None:
        response = await visit.http.get(path)
        assert response.status == 401
        assert "jigsaw-triton console" in await response.text()

    visiting(ask, log_in=False)


def test_a_token_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        token = visit.access.new_token()
        response = await visit.http.get(f"/login?token={token}", allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (303, "/")
        cookie = response.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Secure" not in cookie
        assert (await visit.http.get("/")).status == 200
        for used in (token, "wrong", ""):
            again = await visit.http.get(f"/login?token={used}", allow_redirects=False)
            assert again.status == 403
            assert "does not open the console" in await again.text()

    visiting(ask, log_in=False)


def test_a_console_with_a_password_asks_for_it(visiting: Visiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WRONG_PASSWORD_S", 0.0)

    async def ask(visit: Visit) -> None:
        page = await visit.http.get("/")
        assert page.status == 401
        assert 'type="password"' in await page.text()
        call = await visit.http.get("/api/session")
        assert "enter the password" in (await call.json())["error"]["hint"]
        wrong = await visit.http.post("/login", data={"password": "<script>"})
        assert wrong.status == 403
        assert "script>" not in await wrong.text()
        again = await visit.http.get("/login")
        assert 'type="password"' in await again.text()
        right = await visit.http.post("/login", data={"password": PASSWORD}, allow_redirects=False)
        assert right.status == 303
        long = await visit.http.post("/login", data={"password": PASSWORD + 5000 * " "})
        assert long.status == 413
        assert "Secure" in right.headers["Set-Cookie"]

    visiting(ask, log_in=False, password=PASSWORD, behind_proxy=True)


def test_a_session_can_be_ended(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        await visit.http.post("/logout")
        assert (await visit.http.get("/api/session")).status == 401

    visiting(ask)


def test_requests_under_the_name_of_another_site_are_refused(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        for path in ("/", "/api/session", f"/login?token={visit.access.new_token()}"):
            response = await visit.http.get(path, headers={"Host": "<b>evil.example.com"})
            assert response.status == 421
            assert "<b>" not in await response.text() or path.startswith("/api/")
        assert (await visit.http.get("/", headers={"Host": "gpu1"})).status == 200

    visiting(ask, hosts=("gpu1",))


def test_pages_of_another_site_cannot_post(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        for origin in ("http://evil.example.com", "null", "http://["):
            response = await visit.http.post("/api/whatif", json={}, headers={"Origin": origin})
            assert response.status == 403
        response = await visit.http.post("/api/whatif", data="{}", headers={"Content-Type": "text/plain"})
        assert response.status == 400

    visiting(ask)


def test_a_proxy_may_change_the_host_but_not_the_origin(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        # Only over HTTPS would a browser send the cookie by itself.
        cookie = {"Cookie": f"jigsaw_console_8080={visit.access.redeem(visit.access.new_token())}"}
        own, other = {"Origin": "https://console.example.org"}, {"Origin": "https://other.example.org"}
        assert (await visit.http.post("/logout", headers={**cookie, **other})).status == 403
        assert (await visit.http.post("/logout", headers={**cookie, **own})).status == 200

    visiting(ask, log_in=False, behind_proxy=True, hosts=("console.example.org",))


def test_every_response_has_the_headers_that_protect_it(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        for path in ("/", "/assets/app.js", "/assets/missing", "/api/session", "/login?token=x", "/api/missing"):
            headers = (await visit.http.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"

    visiting(ask)


def test_pages_are_compressed_and_not_sent_again(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        page = await visit.http.get("/")
        assert page.headers["Content-Encoding"] == "gzip"
        assert "<p>hello</p>" in await page.text()
        known = await visit.http.get("/", headers={"If-None-Match": page.headers["ETag"]})
        assert known.status == 304
        plain = await visit.http.get("/", headers={"Accept-Encoding": "identity"})
        assert "Content-Encoding" not in plain.headers

    visiting(ask)


@pytest.mark.parametrize("path", ["missing.js", "../process.py", "%2e%2e/process.py", "..%2fprocess.py", "/etc/passwd"])
def test_only_built_files_are_sent(visiting: Visiting, path: str) -> None:
    async def ask(visit: Visit) -> None:
        assert (await visit.http.get(f"/assets/{path}")).status == 404

    visiting(ask)


def test_the_stream_begins_with_the_state(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        async with asyncio.timeout(WAIT_LIMIT_S), visit.http.get("/api/stream") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            state = frames(await _block(response))
            assert [kind for kind, _ in state] == ["state"]
            visit.live.events.append(event(1, "</script><script>alert(1)</script>"))
            (kind, data), *_ = frames(await _block(response))
            assert (kind, data["text"]) == ("event", "</script><script>alert(1)</script>")

    visiting(ask)


async def _block(response: Any) -> bytes:
    return bytes(await response.content.readuntil(b"\n\n"))


def test_a_stream_ends_with_its_session(visiting: Visiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEEP_ALIVE_S", 0.01)

    async def ask(visit: Visit) -> None:
        async with asyncio.timeout(WAIT_LIMIT_S), visit.http.get("/api/stream") as response:
            await _block(response)
            await visit.http.post("/logout")
            await response.content.read()

    visiting(ask)


def test_the_session_names_the_deployment(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        found = await visit.json("/api/session")
        assert found["deployment"] == "demo"
        assert (found["allow_changes"], found["csrf"]) == (False, None)

    visiting(ask)


def test_changes_are_refused_unless_they_are_allowed(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        response = await visit.http.post("/api/change/pause", json={}, headers={CSRF_HEADER: "x"})
        assert response.status == 403
        assert "--allow-changes" in (await response.json())["error"]["hint"]
        assert visit.live.changes == []

    visiting(ask)


def test_changes_need_the_token_of_the_session(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        csrf = (await visit.json("/api/session"))["csrf"]
        for wrong in ({}, {CSRF_HEADER: ""}, {CSRF_HEADER: f"{csrf}x"}):
            assert (await visit.http.post("/api/change/pause", json={}, headers=wrong)).status == 403
        right = {CSRF_HEADER: csrf}
        assert (await visit.http.post("/api/change/cordon", json={"node": "a"}, headers=right)).status == 202
        assert (await visit.http.post("/api/change/down", json={}, headers=right)).status == 404
        assert visit.live.changes == [("cordon", {"node": "a"})]
        # Another browser has a token of its own.
        await visit.log_in()
        assert (await visit.http.post("/api/change/pause", json={}, headers=right)).status == 403

    visiting(ask, allow_changes=True)


def test_events_are_filtered(visiting: Visiting, journal: Journal) -> None:
    for number in range(30):
        journal.event("plan" if number % 3 else "error", f"Event {number} <i>")

    async def ask(visit: Visit) -> None:
        async def ids(query: str) -> list[int]:
            return [e["id"] for e in (await visit.json(f"/api/events?{query}"))["events"]]

        everything = await visit.json("/api/events")
        assert everything["kinds"] == ["error", "plan"]
        assert everything["events"][0].keys() == {"id", "at", "kind", "text", "code"}
        assert await ids("limit=2") == [29, 30]
        assert await ids("after=28") == [29, 30]
        assert await ids("before=3") == [1, 2]
        assert await ids("kind=error&limit=2") == [25, 28]
        assert await ids("text=EVENT%209%20%3CI") == [10]
        assert await ids("kind=missing") == []
        assert await ids("limit=0") == []

    visiting(ask)


@pytest.mark.parametrize("query", ["after=x", "before=-1", "limit=1e3", "after=%D9%A1"])
def test_wrong_parameters_are_errors(visiting: Visiting, query: str) -> None:
    async def ask(visit: Visit) -> None:
        response = await visit.http.get(f"/api/events?{query}")
        assert response.status == 400
        assert "is not a whole number" in (await response.json())["error"]["message"]

    visiting(ask)


def test_logs_are_read_by_name(visiting: Visiting, paths: Paths) -> None:
    paths.log("gateway").write_text("one\ntwo\nthree\n")

    async def ask(visit: Visit) -> None:
        assert await visit.json("/api/servers") == ["gateway"]
        assert (await visit.json("/api/logs?server=gateway&lines=2"))["lines"] == ["two", "three"]
        for wrong in ("..%2Fjournal.sqlite", "", "gatewy"):
            response = await visit.http.get(f"/api/logs?server={wrong}")
            assert response.status == 400
            assert "there is no log" in (await response.json())["error"]["message"]

    visiting(ask)


def test_traces_are_listed_and_shown_as_spans(visiting: Visiting, paths: Paths) -> None:
    write(paths.run, FIRST, SECOND, RUN)

    async def ask(visit: Visit) -> None:
        (listed,) = await visit.json("/api/traces")
        assert (listed["graph"], listed["request"], listed["ms"]) == ("g", "7", pytest.approx(50.0))
        trace = await visit.json(visit.http.make_url(f"/api/traces/{listed['id']}").path_qs)
        kinds = [(span["task"], span["kind"]) for span in trace["spans"]]
        assert kinds == [
            ("a", "queue"), ("a", "gateway"), ("b", "queue"), ("b", "gateway"), ("b", "call"), ("b", "model"),
        ]  # fmt: skip
        call = trace["spans"][4]
        assert (call["start_ms"], call["end_ms"], call["worker"], call["variant"], call["items"]) == (
            36,
            44,
            "w",
            "v",
            2,
        )
        for other in ("other", "**%2F*", "..%2F..%2Fg", "%2Fetc%2Fg", "%00"):
            assert (await visit.json(f"/api/traces?graph={other}")) == []
        for wrong in ("7", 3000 * "[", '["%2F**","7",0]', '["g","%7Bid%2F7%7D",0]'):
            response = await visit.http.get(f"/api/traces/{wrong}")
            assert response.status == 400

    visiting(ask)


def test_a_trace_that_was_listed_before_its_first_task_was_recorded_is_found(visiting: Visiting, paths: Paths) -> None:
    write(paths.run, SECOND)

    async def ask(visit: Visit) -> None:
        (early,) = await visit.json("/api/traces")
        write(paths.run, FIRST)
        trace = await visit.json(visit.http.make_url(f"/api/traces/{early['id']}").path_qs)
        assert trace["spans"][0]["task"] == "a"
        assert trace["id"] != early["id"]

    visiting(ask)


def test_the_history_has_samples_and_the_changes_among_them(visiting: Visiting, paths: Paths, journal: Journal) -> None:
    kept(journal)
    journal.event("ready", "the new generation serves")
    sample = {"t": 2e9, "slices": 2, "graphs": {"app": {"arrivals_rps": 3.0, "p50_ms": None}}}
    other = {**sample, "t": 2e9 + 1, "graphs": {}}
    paths.load.write_text("".join(json.dumps(s) + "\n" for s in (sample, other)) + '{"t": 2e9')

    async def ask(visit: Visit) -> None:
        found = await visit.json("/api/history")
        assert found["samples"]["t"] == [2e9, 2e9 + 1]
        assert found["samples"]["graphs"] == {"app": {"arrivals_rps": [3.0, None], "p50_ms": [None, None]}}
        (change,) = found["changes"]
        assert (change["generation"], change["from"], change["slices_after"]) == (1, 0, 2)
        assert change["seconds"] >= 0
        assert (await visit.json("/api/history?seconds=0"))["changes"] == []

    visiting(ask)


def test_the_plan_is_that_of_the_generation_that_serves(visiting: Visiting, journal: Journal) -> None:
    made = kept(journal)

    async def ask(visit: Visit) -> None:
        found = await visit.json("/api/plan")
        assert found["plan"]["graphs"] == json.loads(json.dumps(made.plan.to_json()["graphs"]))
        assert (found["explain"], found["explaining"], found["explain_error"]) == (None, False, None)

    visiting(ask)


def test_without_a_deployment_there_is_nothing_to_plan(visiting: Visiting) -> None:
    async def ask(visit: Visit) -> None:
        assert (await visit.json("/api/plan"))["plan"] is None
        assert (await visit.json("/api/events"))["events"] == []
        assert (await visit.json("/api/history"))["samples"]["t"] == []
        response = await visit.http.post("/api/whatif", json={})
        assert response.status == 409
        assert "nothing has been deployed" in (await response.json())["error"]["message"]

    visiting(ask)


@pytest.mark.parametrize("body", ["", "[]", "{", 100_000 * "["])
def test_a_body_that_is_no_object_is_an_error(visiting: Visiting, body: str) -> None:
    async def ask(visit: Visit) -> None:
        headers = {"Content-Type": "application/json"}
        response = await visit.http.post("/api/whatif", data=body, headers=headers)
        assert response.status == 400
        assert (await response.json())["error"]["code"] == 2

    visiting(ask)


def test_an_unexpected_error_is_an_answer(visiting: Visiting, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("no such thing")

    monkeypatch.setattr("jigsaw_triton.console.web.records.Records.servers", fail)

    async def ask(visit: Visit) -> None:
        response = await visit.http.get("/api/servers")
        assert response.status == 500
        assert "AttributeError: no such thing" in (await response.json())["error"]["message"]

    visiting(ask)


@pytest.mark.slow
def test_plans_for_other_requirements_are_made_and_explained(visiting: Visiting, journal: Journal) -> None:
    kept(journal)

    async def ask(visit: Visit) -> None:
        async def what_if(asked: dict[str, Any]) -> Any:
            response = await visit.http.post("/api/whatif", json=asked)
            return await response.json()

        same, more = await what_if({}), await what_if({"demand": {"app": 30}})
        assert same["feasible"]
        assert more["slices"] > same["slices"]
        assert more["plan"]["graphs"]["app"]["demand_rps"] == 30
        assert more["difference"]
        none = await what_if({"slo": {"app": {"latency_ms": 0.1}}})
        assert (none["feasible"], none["plan"]) == (False, None)
        assert none["reasons"]
        wrong = await what_if({"demand": {"ap": 3}})
        assert "there is no graph 'ap'" in wrong["error"]["message"]
        found = await visit.json("/api/plan?explain=1")
        assert found["explaining"]
        async with asyncio.timeout(WAIT_LIMIT_S):
            while (found := await visit.json("/api/plan"))["explaining"]:  # noqa: ASYNC110 - a server answers
                await asyncio.sleep(0.05)
        assert found["explain_error"] is None
        assert {"app.demand_rps", "app.latency_ms"} <= {r["name"] for r in found["explain"]["requirements"]}
        assert await visit.json("/api/plan?explain=1") == found

    visiting(ask)
