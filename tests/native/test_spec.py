"""Parsers of front specifications, routes and JSON."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.native import specs
from tests.native.parts import parse_route, parse_spec
from tests.native.specs import ONE, entry, spec, task

ROWS = ("INT64", (-1, 1))

WHOLE = spec(
    [
        task("a", outputs={"R": ROWS}, yields=["R"], counts={"N": "R"}, variants=["v"], rest_ms=3.5, followers=["x"]),
        task(
            "b",
            {"X": ("a.R", ONE)},
            mode="rows",
            iterated=["X"],
            condition={"tensor": "inputs.X", "above": 0.5, "below": None},
        ),
        task("s", {"X": ("a.N", ONE)}, mode="items", step=True, retry=False),
    ],
    outputs={"Y": ("b.Y", ROWS), "Z": ("s.Y", ONE)},
    overload="queue",
    split=True,
    most_requests=100,
    most_bytes=1000,
)


def test_a_specification_with_every_member_is_read() -> None:
    assert parse_spec(json.dumps(WHOLE)) == {"tasks": 3, "tensors": 5}


def test_unknown_members_are_ignored() -> None:
    assert parse_spec(json.dumps({**WHOLE, "news": [1, {"a": None}]}))["tasks"] == 3


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Copy of the specification with one value replaced, or removed if the value is None."""
    made: Any = deepcopy(WHOLE)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("version",), 3, "spec.version is 3, but this backend reads version 2"),
        (("version",), None, 'spec has no "version"'),
        (("version",), "2", "spec.version is not an integer"),
        (("graph",), "", "spec.graph is not a name"),
        (("graph",), "a/b", "spec.graph is not a name"),
        (("slo_ms",), 0, "spec.slo_ms is not above 0"),
        (("slo_ms",), -1.5, "spec.slo_ms is not above 0"),
        (("slo_ms",), 1e300, "spec.slo_ms is too long"),
        (("slo_ms",), True, "spec.slo_ms is not a number"),
        (("split",), 1, "spec.split is not true or false"),
        (("overload",), "drop", "neither refuse nor queue: drop"),
        (("clock",), True, "spec.clock is set for more than one task"),
        (("inputs",), [], "spec.inputs is empty"),
        (("inputs",), {}, "spec.inputs is not an array"),
        (("inputs", 0, "dtype"), "FLOAT", "spec.inputs[0].dtype is not a data type: FLOAT"),
        (("inputs", 0, "shape"), [-2], "spec.inputs[0].shape has a dimension below -1"),
        (("inputs", 0, "shape"), [1.5], "spec.inputs[0].shape is not an integer"),
        (("outputs",), [], "spec.outputs is empty"),
        (("outputs", 1, "tensor"), "b.Z", "spec.outputs[1].tensor names a tensor that no earlier task produces: b.Z"),
        (("tasks",), [], "spec.tasks is empty"),
        (("tasks", 0, "name"), "..", "spec.tasks[0].name is not a name"),
        (("tasks", 1, "name"), "a", "a second time|name of another task"),
        (("tasks", 0, "route"), "../r", "spec.tasks[0].route is not a name"),
        (("tasks", 0, "mode"), "batch", "spec.tasks[0].mode is not stack, rows or items: batch"),
        (("tasks", 0, "mode"), "items", None),
        (("tasks", 1, "mode"), "items", "is only allowed in mode rows"),
        (("tasks", 0, "inputs", 0, "shape"), [-1], "spec.tasks[0].inputs[0].shape varies, which is only allowed in"),
        (("tasks", 0, "inputs"), [], "spec.tasks[0].inputs is empty"),
        (("tasks", 0, "inputs", 0, "tensor"), "b.Y", "names a tensor that no earlier task produces: b.Y"),
        (("tasks", 0, "outputs"), [], "spec.tasks[0].outputs is empty"),
        (("tasks", 0, "outputs", 0, "shape"), [], "has no dimension of rows"),
        (("tasks", 0, "counts"), {"N": "Q"}, "counts rows of an unknown output: Q"),
        (("tasks", 0, "counts"), ["N"], "spec.tasks[0].counts is not an object"),
        (("tasks", 0, "deadline_ms"), None, 'spec.tasks[0] has no "deadline_ms"'),
        (("tasks", 0, "deadline_ms"), 1e100, "spec.tasks[0].deadline_ms is too long"),
        (("tasks", 0, "followers"), "b", "spec.tasks[0].followers is not an array"),
        (("tasks", 0, "followers"), [1], "spec.tasks[0].followers is not a string"),
        (("tasks", 0, "rest_ms"), -1e300, None),
        (("tasks", 0, "rest_ms"), 1e300, None),
        (("tasks", 1, "condition", "below"), 1.0, "needs exactly one of above and below"),
        (("tasks", 1, "condition", "above"), None, "needs exactly one of above and below"),
        (("tasks", 1, "condition", "tensor"), "s.Y", "names a tensor that no earlier task produces: s.Y"),
    ],
)
def test_errors_name_the_place(path: tuple[str | int, ...], value: Any, words: str | None) -> None:
    found = parse_spec(json.dumps(changed(path, value)))
    if words is None:
        assert "error" not in found
    else:
        assert any(word in found["error"] for word in words.split("|")), found


def test_a_tensor_is_produced_only_once() -> None:
    twice = spec([task(outputs={"Y": ONE}), task(outputs={"Y": ONE})])
    assert "a second time" in parse_spec(json.dumps(twice))["error"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"worker": ""}, "route.workers[0].worker is not a name"),
        ({"model": "../m"}, "route.workers[0].model is not a name"),
        ({"worker": "a\0b"}, "route.workers[0].worker is not a name"),
        ({"batch": 0}, "route.workers[0].batch is not a positive count"),
        ({"batch": 10**9}, "route.workers[0].batch is not a positive count"),
        ({"slots": 1.5}, "route.workers[0].slots is not an integer"),
        ({"share": 1.5}, "route.workers[0].share is not from 0 to 1"),
        ({"tokens": -1}, "route.workers[0].tokens is not a count"),
        ({"tokens": 10**6}, "route.workers[0].tokens is not a count"),
        ({"service_ms": {"x": 1}}, "route.workers[0].service_ms has an invalid batch size: x"),
        ({"service_ms": {"": 1}}, "route.workers[0].service_ms has an invalid duration for batch "),
        ({"service_ms": {"0": 1}}, "route.workers[0].service_ms has an invalid duration for batch 0"),
        ({"service_ms": {"1": 0}}, "route.workers[0].service_ms has an invalid duration for batch 1"),
        ({"service_ms": {"1": 1e300}}, "route.workers[0].service_ms has an invalid duration for batch 1"),
        ({"deadline_ms": {"99999999999999999999": 1}}, "route.workers[0].deadline_ms has an invalid batch size"),
        ({"deadline_ms": [1]}, "route.workers[0].deadline_ms is not an object"),
        ({"generations": 3}, "route.workers[0].generations is not an array"),
        ({"generations": [3, 1.5]}, "route.workers[0].generations[1] is not an integer"),
        ({"generations": [-1]}, "route.workers[0].generations[0] is below 0"),
        ({"generations": [*range(65)]}, "route.workers names more than 64 generations"),
        ({"closed": 1}, "route.workers[0].closed is not true or false"),
        ({"remote": "b:8000"}, "route.workers[0].remote is not true or false"),
        ({"node": 1}, "route.workers[0].node is not a string"),
        ({"slo_ms": -1}, "route.workers[0].slo_ms is not above 0"),
        ({"slo_ms": 1e300}, "route.workers[0].slo_ms is too long"),
    ],
)
def test_errors_of_a_route_name_the_place(change: dict[str, Any], words: str) -> None:
    text = json.dumps({"version": 3, "workers": [{**entry("w"), **change}]})
    assert words in parse_route(text)["error"]


@pytest.mark.parametrize("version", [2, 4, "3", None])
def test_routes_of_other_versions_are_rejected(version: Any) -> None:
    assert "route.version is not" in parse_route(json.dumps({"version": version, "workers": []}))["error"]


def test_a_route_with_every_member_is_read() -> None:
    more: dict[str, Any] = {"variant": "v", "share": 0.5, "tokens": 2, "remote": True, "node": "b"}
    times: dict[str, Any] = {"service_ms": {"1": 2.5, "8": 9}, "deadline_ms": {"8": 100}}
    generations: dict[str, Any] = {"generations": [63, 126], "closed": True}
    whole = {"version": 3, "workers": [entry("a"), entry("b", **more, **times, **generations)]}
    assert parse_route(json.dumps(whole)) == {"entries": 2}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "{",
            "[1,]",
            '{"a"}',
            '{"a":}',
            "{a: 1}",
            "nul",
            "truefalse",
            "1 2",
            '"',
            '"\\x"',
            '"\\u12"',
            '"\\u12g4"',
        ),
        *('"\\ud83d\\u0041"', "+1", "-", "1e", "1e999", "NaN", "Infinity", "[" * 100, "{}}", "\0", "'a'", "01x"),
    ],
)
def test_invalid_json_is_rejected(text: str) -> None:
    assert parse_spec(text)["error"].startswith("JSON: ")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.slow
@given(JSON, st.booleans())
def test_any_json_is_read(value: object, ascii_only: bool) -> None:
    """The JSON is read; the error is that it is not a specification."""
    found = parse_spec(json.dumps(value, ensure_ascii=ascii_only))
    assert not found["error"].startswith("JSON"), found


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(data: bytes) -> None:
    assert "error" in parse_spec(data)
    assert "error" in parse_route(data)


@given(st.integers(0, len(json.dumps(WHOLE)) - 1), st.characters(max_codepoint=127))
def test_a_damaged_specification_is_harmless(place: int, character: str) -> None:
    text = json.dumps(WHOLE)
    parse_spec(text[:place] + character + text[place + 1 :])
    assert "error" in parse_spec(text[:place])


def test_the_first_of_two_equal_members_counts() -> None:
    text = json.dumps(specs.spec())
    assert "error" not in parse_spec(text[:-1] + ', "version": 7}')
