from dataclasses import replace
from typing import Any

import pytest

from jigsaw_triton.servers.engines.placement import AgentSpec, endpoint, hosts

A = AgentSpec("a", "", 7440, "", {"cert.pem": "one"})


def raylet(address: str, *names: str, alive: bool = True) -> dict[str, Any]:
    own = {f"node:{address}": 1.0, **{f"node:{name}": 1.0 for name in names}}
    return {"Alive": alive, "NodeManagerAddress": address, "Resources": {"CPU": 4.0, **own}}


def test_a_node_is_the_raylet_that_offers_its_name() -> None:
    table = [raylet("10.0.0.1", "__internal_head__"), raylet("10.0.0.2", "a"), raylet("10.0.0.3", "b")]
    assert hosts(table, ["a", "b"]) == ({"a": "10.0.0.2", "b": "10.0.0.3"}, {})


def test_a_raylet_that_was_replaced_offers_nothing() -> None:
    assert hosts([raylet("10.0.0.2", "a", alive=False), raylet("10.0.0.4", "a")], ["a"]) == ({"a": "10.0.0.4"}, {})


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        (
            [],
            "none of the 0 raylets offers the resource node:a",
            "ray start --num-gpus=0 --resources='{\"node:a\": 1}'",
        ),
        ([raylet("10.0.0.1", "gpu-a")], "none of the 1 raylets offers", "nodes that are offered: gpu-a"),
        (
            [raylet("10.0.0.2", "a"), raylet("10.0.0.1", "a")],
            "2 raylets offer node:a: 10.0.0.1, 10.0.0.2",
            "give each raylet a name of its own",
        ),
    ],
)
def test_a_node_that_no_raylet_or_more_than_one_offers_is_a_mistake(
    table: list[dict[str, Any]], message: str, hint: str
) -> None:
    found, mistakes = hosts(table, ["a"])
    assert found == {}
    assert mistakes["a"].where == "node a"
    assert message in mistakes["a"].message and hint in mistakes["a"].hint


def test_the_address_of_an_agent_is_the_given_one_or_that_of_its_raylet() -> None:
    assert endpoint(A, "10.0.0.2") == "10.0.0.2:7440"
    assert endpoint(A, "fd00::2") == "[fd00::2]:7440"
    assert endpoint(replace(A, address="gpu-a:7441", port=7441), "10.0.0.2") == "gpu-a:7441"


def test_an_actor_is_replaced_if_its_agent_needs_other_settings_or_certificates() -> None:
    changed = [
        replace(A, port=1),
        replace(A, state="/s"),
        replace(A, address="gpu-a:7440"),
        replace(A, files={"cert.pem": "two"}),
    ]
    assert len({spec.actor for spec in [A, *changed]}) == 5
    # The agent stays the same whatever address the controller reaches it by.
    assert replace(A, address="gpu-a:7440").actor == replace(A, address="10.0.0.9:7440").actor


def test_keys_are_not_shown() -> None:
    assert "one" not in repr(A)
