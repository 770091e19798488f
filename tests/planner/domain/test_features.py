import itertools

import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.domain.features import FEATURES, SUBSETS, canonical, has, includes, named


def test_the_sixteen_subsets_are_distinct_and_canonical() -> None:
    assert len(set(SUBSETS)) == 16
    assert [canonical(subset) for subset in SUBSETS] == list(SUBSETS)
    assert FEATURES in SUBSETS


def test_every_order_of_letters_has_one_canonical_form() -> None:
    letters = [text for n in range(6) for text in map("".join, itertools.permutations("AMPST", n))]
    assert {canonical(text) for text in letters} == set(SUBSETS)
    for text in letters:
        assert canonical(text) == canonical(text[::-1])


@pytest.mark.parametrize(
    ("letters", "form"), [("AMPT", "AST"), ("PM", "S"), ("TPA", "APT"), ("SM", "S"), ("AA", "A"), ("", "")]
)
def test_s_stands_for_m_and_p(letters: str, form: str) -> None:
    assert canonical(letters) == form


@pytest.mark.parametrize("subset", SUBSETS)
def test_s_includes_its_parts(subset: str) -> None:
    assert (has(subset, "M") and has(subset, "P")) == ("S" in subset)
    assert has(subset, "A") == ("A" in subset)


def test_all_features_include_every_subset_and_a_subset_only_its_own() -> None:
    assert all(includes(FEATURES, subset) and includes(subset, "") for subset in SUBSETS)
    assert includes("AS", "AP") and not includes("AP", "AS") and not includes("AM", "AP")


def test_an_unknown_letter_is_reported_with_all_letters() -> None:
    with pytest.raises(InputError, match="'AXY': X, Y unknown") as caught:
        canonical("AXY")
    assert "M (MIG slices)" in caught.value.hint


def test_features_are_named_as_people_write_them() -> None:
    assert (named("AMT"), named("")) == ("A+M+T", "none")
