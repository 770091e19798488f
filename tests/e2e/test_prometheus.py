"""Prometheus reads a running deployment, and the queries of rules and dashboard return data."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import yaml

from tests.e2e.clients import Client
from tests.e2e.system import System, free_ports
from tests.fakes.pages import Page
from tests.launch.test_prometheus import ALERTS, INSTALL, NAME, PROMETHEUS, RECORDS, panels
from tests.programs import needed
from tests.waiting import WAIT_LIMIT_S, eventually

pytestmark = pytest.mark.e2e

OF_EVENTS = frozenset({"Plans A", "Restarts A"})
"""Queries of the dashboard, by panel and place, that have data after a change of the plan, and after a restart."""

MORE = "30"
"""Demand in requests a second that takes another plan."""

VARIABLES = {"$deployment": "main", "$graph": ".*", "$__rate_interval": "30s", "$__interval": "30s"}


class Server:
    """A Prometheus that scrapes once a second.

    Args:
        port: Port that it listens on.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        """Returns the data of an answer of the HTTP API."""
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=WAIT_LIMIT_S) as answer:
            return json.load(answer)["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """Returns the result of an instant query."""
        for variable, value in VARIABLES.items():
            text = text.replace(variable, value)
        found: list[dict[str, Any]] = self.get("query", query=text)["result"]
        return found

    def wait_data(self, queries: dict[str, str]) -> None:
        """Waits until each query has returned data.

        Args:
            queries: Query by its name.
        """
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        missing = dict(queries)
        while missing := {name: text for name, text in missing.items() if not self.query(text)}:
            assert time.monotonic() < give_up_at, f"no data: {missing}"
            time.sleep(0.5)


@contextmanager
def prometheus(program: Path, folder: Path, gateway: int, controller: int) -> Iterator[Server]:
    """Runs Prometheus with the configuration in `launch`, for other ports.

    Args:
        program: Path of Prometheus.
        folder: Folder for its files.
        gateway: Port of the gateway's metrics.
        controller: Port of the controller's metrics.
    """
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    for job, port in zip(config["scrape_configs"], (gateway, controller), strict=True):
        job["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    command = [
        str(program),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        while not answers(port):
            assert process.poll() is None and time.monotonic() < give_up_at, (folder / "log").read_text()
            time.sleep(0.1)
        yield Server(port)
    finally:
        process.terminate()
        process.wait(WAIT_LIMIT_S)


def answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=WAIT_LIMIT_S):
            return True
    except OSError:
        return False


@contextmanager
def load(system: System) -> Iterator[None]:
    """Sends a few requests a second."""
    ended = threading.Event()
    errors: list[Exception] = []

    def send() -> None:
        frame = np.zeros((1, 640, 640, 3), np.uint8)
        try:
            with Client(system, "grpc") as client:
                while not ended.wait(0.1):
                    client.ask("traffic", {"FRAME": frame}, ("MAKE", "PERSON"))
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert not errors


def test_queries_return_data_and_the_log_is_json(system: System, tmp_path: Path) -> None:
    program = needed("prometheus", INSTALL)
    app, (port,) = tmp_path / "crossing", free_ports(1)
    made = system.run("init", app, "--from", "traffic")
    assert made.code == 0, made.err
    keep_slices(app / "profiles.csv", "1g")
    add_condition(app / "graph.yaml")
    gpus = ("--gpus", "1xH100-80GB", "--driver", "emulated", "--demand", "5")
    status = system.deploy(app, *gpus, "--controller-metrics", port, "--log-format", "json")
    assert status["controller"]["metrics"] == f"127.0.0.1:{port}"
    with prometheus(program, tmp_path / "prometheus", system.metrics, port) as server:
        titles = [f"{title} {place}" for title, place in placed(panels())]
        queries = dict(zip(titles, (query for _, query in panels()), strict=True))
        with load(system):
            expected = {name: text for name, text in queries.items() if name not in OF_EVENTS}
            server.wait_data(expected | {name: name for name in RECORDS})
            # Alerts that do not fire have no data, but the metrics that they compare have.
            server.wait_data({name: name for text in ALERTS.values() for name in NAME.findall(without_labels(text))})
        rules = [rule for group in server.get("rules")["groups"] for rule in group["rules"]]
        assert {rule["name"] for rule in rules} == RECORDS.keys() | ALERTS.keys()
        assert [rule for rule in rules if rule["health"] != "ok"] == []
        check_log(system)
        os.kill(status["workers"][0]["pid"], signal.SIGKILL)
        server.wait_data({"Restarts A": queries["Restarts A"]})
        more = (*gpus[:-1], MORE, *system.ports, "--detach")
        assert system.run("deploy", app, *more).code == 0
        server.wait_data({"Plans A": queries["Plans A"]})
        check_report(system, tmp_path / "report.html")
        # The next controller serves the metrics, too.
        system.kill_controller()
        wait_value(server, 'up{job="jigsaw-controller"}', "0")
        assert system.run("deploy", app, *more, "--controller-metrics", port).code == 0
        wait_value(server, 'up{job="jigsaw-controller"}', "1")
        refused = system.run("deploy", app, *more, "--log-format", "json")
        assert refused.code == 2
        assert "--log-format: the running controller has text, not json" in refused.err


def add_condition(graph: Path) -> None:
    """Lets a task run if the score is low, as that of an emulated model always is."""
    text = graph.read_text()
    for before, after in (
        ("      outputs:\n        CARS:", "      outputs:\n        SCORE: {dtype: FP32, shape: [1]}\n        CARS:"),
        (
            "      for_each: detect.CARS\n",
            "      for_each: detect.CARS\n      when: {tensor: detect.SCORE, below: 0.5}\n",
        ),
    ):
        assert before in text
        text = text.replace(before, after)
    graph.write_text(text)


def keep_slices(profiles: Path, kind: str) -> None:
    """Removes the rows of other kinds of slices, so that planning and the report's fit are quick."""
    header, *rows = profiles.read_text().splitlines()
    column = header.split(",").index("slice")
    profiles.write_text("\n".join([header, *(row for row in rows if row.split(",")[column] == kind)]) + "\n")


def placed(targets: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(title, letter) of each target: the letters that Grafana gives the queries of a panel."""
    counts: dict[str, int] = {}
    for title, _ in targets:
        counts[title] = counts.get(title, -1) + 1
        yield title, chr(ord("A") + counts[title])


def without_labels(query: str) -> str:
    return re.sub(r"\b(?:by|on) ?\([^)]*\)|\{[^}]*\}", "", query)


def wait_value(server: Server, query: str, value: str) -> None:
    eventually(
        lambda: [sample["value"][1] for sample in server.query(query)] == [value], lambda: f"{query} is not {value}"
    )


def check_report(system: System, path: Path) -> None:
    assert system.run("report", "-O", path).code == 0
    found = Page(path.read_text())
    found.check_alone()
    assert "ready, serves" in found.text and "Profiles of traffic" in found.text
    answered = system.metric("jigsaw_slo_total", graph="traffic", outcome="met")
    assert answered > 0 and f" traffic {answered:,.0f} " in found.text


def check_log(system: System) -> None:
    lines = [json.loads(line) for line in (system.state / "logs" / "controller.log").read_text().splitlines()]
    (ready,) = (line for line in lines if line["message"].startswith("ready: the new generation serves"))
    assert (ready["level"], ready["generation"]) == ("INFO", 1)
    shown = system.run("logs", "controller", "-n", "1000").out
    assert f"{ready['time']} INFO {ready['logger']}: {ready['message']} (generation 1)" in shown
