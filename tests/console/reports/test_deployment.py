import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from jigsaw_triton.api.profiles import profile_figures
from jigsaw_triton.console.reports.deployment import DeploymentFigures, deployment_page
from jigsaw_triton.console.reports.load import Load
from jigsaw_triton.console.status import snapshot
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.persistence.records import JournalEvent, Revision
from tests.console.conftest import Desk
from tests.console.test_status import ONE, served
from tests.controller.worlds import profiled
from tests.fakes.pages import Page

BAD = '<img src=x onerror="alert(1)">'


def figures(desk: Desk, **changes: Any) -> DeploymentFigures:
    desk.controller.state = served()
    made = profiled(ONE)
    graph = made.wanted.graphs["app"]
    profiles = profile_figures(made.wanted.profiles["app"], graph=graph, file="profiles.csv", modified=None)
    requests: Mapping[tuple[str, int], RequestCounts] = {
        ("app", 1): RequestCounts(100.0, 4.0, {0.1: 50.0, 0.5: 95.0, math.inf: 96.0}),
        ("app", 2): RequestCounts(),
    }
    return replace(
        DeploymentFigures(
            at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
            status=snapshot(desk.controller, desk.fleet),
            generation=made,
            outcomes={"app": {"met": 950.0, "missed": 30.0, "failed": 20.0}},
            requests=requests,
            unread="",
            load=Load([{"t": 1772600400.0, "slices": 2, "graphs": {"app": {"arrivals_rps": 7.0}}}]),
            history=[Revision(1, "2026-03-04T05:00:00.123", "user", "deploy", 2, 14, "serves")],
            events=[JournalEvent(1, "2026-03-04T05:00:01.5", "ready", "the new generation serves", 0)],
            profiles=[profiles],
        ),
        **changes,
    )


def test_the_report_has_the_whole_deployment(desk: Desk) -> None:
    found = Page(deployment_page(figures(desk)))
    found.check_alone()
    assert found.ids == ["load", "gpus", "graph.app", "servers", "changes", "events"]
    for words in (
        "2026-03-04 05:06:07 UTC",
        "ready, serves",
        "950 30 20 95.0% 99.0%",
        "app 1 100 4 up to 100 over 10,000",
        "n-0-1g-0 ready 1g t0 v0 1x b4 0",
        "1 2026-03-04 05:00:00 user 2 of 14 serves deploy",
        "2026-03-04 05:00:01 ready the new generation serves",
        "The last hour",
        "05:00:00 7",
        "Profiles of app",
        "t0 on A100-80GB",
    ):
        assert words in found.text, words


@pytest.mark.slow
def test_the_report_has_the_standby_gateway(desk: Desk) -> None:
    status = {**figures(desk).status, "standby_gateway": {"state": "ready", "node": "b"}}
    assert "Standby gateway ready, on node b" in Page(deployment_page(figures(desk, status=status))).text


@pytest.mark.slow
def test_a_gateway_that_does_not_answer_is_reported(desk: Desk) -> None:
    text = Page(deployment_page(figures(desk, unread="refused", outcomes={}, requests={}))).text
    assert "The gateway's metrics are missing: refused" in text
    assert "SLO attainment" not in text


@pytest.mark.slow
def test_a_graph_without_requests_has_no_share(desk: Desk) -> None:
    text = Page(deployment_page(figures(desk, outcomes={"app": {"met": 0.0}}))).text
    assert "0 0 0 no requests" in text


@pytest.mark.slow
def test_markup_in_texts_is_text(desk: Desk) -> None:
    events = [JournalEvent(1, "2026-03-04T05:00:01", "error", BAD, 1)]
    status = {**figures(desk).status, "error": BAD, "reasons": [BAD]}
    text = deployment_page(figures(desk, events=events, status=status))
    found = Page(text)
    found.check_alone()
    assert BAD not in text
    assert found.text.count(BAD) == 3
