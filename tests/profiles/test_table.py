import json
import pickle
from dataclasses import astuple, replace

from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.problems import docread_profiles, row


def test_a_table_is_pickled_exactly() -> None:
    table = docread_profiles()
    again = pickle.loads(pickle.dumps(table))
    assert (again.rows(), pickle.dumps(again)) == (table.rows(), pickle.dumps(table))
    assert all(again.get(row.key) == row for row in table.rows())


def test_the_origin_of_a_row_is_pickled() -> None:
    fitted = replace(row("t", "v"), source="fitted", origin="a fit", error=0.03)
    assert pickle.loads(pickle.dumps(ProfileTable([fitted]))).rows() == (fitted,)


def test_a_pickled_table_is_smaller_than_its_text() -> None:
    table = docread_profiles()
    text = json.dumps([astuple(row) for row in table.rows()])
    assert len(pickle.dumps(table)) < len(text) / 2
