"""Bytes in which jobs of the planning process travel."""

import pytest

from jigsaw_triton.controller.planning import pickles as pickles_module
from jigsaw_triton.controller.planning.pickles import Pickles
from tests.fakes.problems import docread_profiles


def test_profiles_that_come_back_are_those_that_were_sent() -> None:
    here, there, sent = Pickles(), Pickles(), docread_profiles()
    assert here.unpacked(there.packed(there.unpacked(here.packed(sent)))) is sent


def test_equal_profiles_are_one_object_for_the_planner() -> None:
    here, there = Pickles(), Pickles()
    data = [here.packed(docread_profiles(batches=batches)) for batches in ((1, 2), (1, 2), (1, 4))]
    one, same, other = map(there.unpacked, data)
    assert one is same
    assert one.rows() == docread_profiles(batches=(1, 2)).rows()
    assert other.rows() == docread_profiles(batches=(1, 4)).rows()


def test_only_the_latest_profiles_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles_module, "MOST_TABLES", 2)
    pickles = Pickles()
    tables = [docread_profiles(batches=(1, batch)) for batch in (2, 4, 8)]
    first, second, third = [pickles.packed(table) for table in tables]
    assert pickles.unpacked(second) is tables[1]
    assert pickles.unpacked(third) is tables[2]
    assert pickles.unpacked(first) is not tables[0], "two later ones have come"
