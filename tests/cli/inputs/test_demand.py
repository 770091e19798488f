import pytest

from jigsaw_triton.api.files import Mistakes
from jigsaw_triton.cli.inputs.demand import parse_demand
from jigsaw_triton.errors import SpecError


def parsed(*texts: str) -> dict[str, float]:
    mistakes = Mistakes()
    demand = parse_demand(texts, mistakes)
    mistakes.raise_if_any()
    return demand


@pytest.mark.parametrize(
    ("texts", "demand"),
    [
        ((), {}),
        (("12",), {"": 12.0}),
        (("a=1.5",), {"a": 1.5}),
        (("a=1", "b=2"), {"a": 1.0, "b": 2.0}),
        (("a=1, b=2",), {"a": 1.0, "b": 2.0}),
        (("1e3",), {"": 1000.0}),
    ],
)
def test_demand_is_parsed(texts: tuple[str, ...], demand: dict[str, float]) -> None:
    assert parsed(*texts) == demand


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a=1", "a=2"), "the graph a is given twice; keep one"),
        (("1,2",), "it is given twice; keep one"),
        (("many",), "'many' is not a number of requests a second"),
        (("nan",), "'nan' is not a number"),
        (("",), "'' is not a number"),
        (("a=",), "'' is not a number"),
    ],
)
def test_a_wrong_demand_is_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError) as error:
        parsed(*texts)
    (diagnostic,) = error.value.diagnostics
    assert str(diagnostic).startswith(f"--demand: {message}")
