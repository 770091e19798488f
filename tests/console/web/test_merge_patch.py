from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.console.web.merge_patch import merge_patch
from tests.fakes.console.server import merged

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.text("ab", max_size=2)
    | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=3)


def without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_none(inner) for name, inner in value.items() if inner is not None}
    return value


@given(OBJECTS, OBJECTS)
def test_a_patch_makes_the_one_object_of_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert without_none(merged(before, merge_patch(before, after))) == without_none(after)


@given(OBJECTS)
def test_equal_objects_have_an_empty_patch(value: dict[str, Any]) -> None:
    assert merge_patch(value, value) == {}


def test_a_patch_has_only_what_differs() -> None:
    before = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": 2}
    after = {"a": {"x": 1, "y": [2]}, "b": 1, "d": 3}
    assert merge_patch(before, after) == {"a": {"y": [2]}, "c": None, "d": 3}
