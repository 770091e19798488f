import pytest

from jigsaw_triton.sizes import readable


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 KiB"),
        (512, "0.5 KiB"),
        (2**20, "1 MiB"),
        (1.5 * 2**20, "1.5 MiB"),
        (12.3 * 2**30, "12.3 GiB"),
        (2000 * 2**40, "2000 TiB"),
    ],
)
def test_a_size_has_a_unit_that_suits_it(size_bytes: float, text: str) -> None:
    assert readable(size_bytes) == text
