import math

from jigsaw_triton.finite_json import finite


def test_numbers_that_json_does_not_have_are_none() -> None:
    assert finite({"a": [math.inf, 1.5, (math.nan, "x")], "b": {"c": -math.inf}, "d": 3}) == {
        "a": [None, 1.5, [None, "x"]],
        "b": {"c": None},
        "d": 3,
    }
