import pytest

from jigsaw_triton.report.numbers import number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.03149, "0.0315"), (12.46, "12.5"), (99.97, "100"), (1480.4, "1,480"), (1e300, "1e+300")],
)
def test_a_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.0, "0.0%"), (0.1249, "12.5%"), (1e299, "over 999%")])
def test_a_share_is_in_percent(share: float, text: str) -> None:
    assert percent(share) == text
