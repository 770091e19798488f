import pickle

from tests.fakes.problems import docread_profiles


def test_a_table_is_pickled_exactly() -> None:
    table = docread_profiles()
    again = pickle.loads(pickle.dumps(table))
    assert (again.rows(), pickle.dumps(again)) == (table.rows(), pickle.dumps(table))
    assert all(again.get(row.key) == row for row in table.rows())
