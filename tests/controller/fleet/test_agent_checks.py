"""Agents that do not fit are named before anything starts."""

from typing import Any

import pytest

from jigsaw_triton import __version__
from jigsaw_triton.controller.fleet.agent_checks import check_agents, check_servers
from jigsaw_triton.controller.fleet.wire import WIRE_VERSION
from jigsaw_triton.errors import InputError

NOW_S = 1.8e9


def agent(node: str, **changes: Any) -> dict[str, Any]:
    said = {"name": node, "release": __version__, "wire": WIRE_VERSION, "tritonserver": "24.10", "utc_s": NOW_S}
    return {**said, **changes}


def test_agents_that_fit_are_accepted() -> None:
    assert check_agents({"a": agent("a"), "b": agent("b", utc_s=NOW_S - 50)}, NOW_S) == ()


def test_a_compatible_agent_of_another_release_is_reported() -> None:
    (text,) = check_agents({"a": agent("a"), "b": agent("b", release="9.9")}, NOW_S)
    assert text == f"node b has jigsaw-triton 9.9, the controller {__version__}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "c"}, "the agent there calls itself 'c'"),
        ({"wire": WIRE_VERSION + 1, "release": "9.9"}, "it has jigsaw-triton 9.9, which does not work together with"),
        ({"utc_s": NOW_S + 120}, "its clock differs from this machine's by 120 s"),
        ({"utc_s": NOW_S - 3600}, "its clock differs from this machine's by -3600 s"),
    ],
)
def test_an_agent_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_agents({"a": agent("a"), "b": agent("b", **changes)}, NOW_S)
    assert caught.value.where == "node b" and caught.value.hint


def test_different_tritonservers_are_refused() -> None:
    with pytest.raises(InputError, match="different tritonservers: a has 24"):
        check_servers({"a": agent("a"), "b": agent("b", tritonserver="25.08")})
    check_servers({"a": agent("a"), "b": agent("b")})
