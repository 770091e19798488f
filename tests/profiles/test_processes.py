from dataclasses import replace
from typing import get_args

import pytest

from jigsaw_triton.gpus import model as gpus
from jigsaw_triton.profiles import table as tables
from jigsaw_triton.profiles.processes import kinds, of_other_kind, refusal
from jigsaw_triton.profiles.table import Processes, ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.problems import row

ONE = replace(row("t0", "v0"), processes="mps")
TWO = replace(row("t0", "v0", instances=2), processes="mps")
UNKNOWN = row("t0", "v0", instances=3)


def test_the_kinds_are_those_of_the_cluster() -> None:
    assert get_args(tables.Processes) == get_args(gpus.Processes)


@pytest.mark.parametrize(("processes", "wrong"), [("streams", [TWO]), ("mps", [])])
def test_only_rows_of_several_instances_that_say_another_kind_are_wrong(
    processes: Processes, wrong: list[tables.ProfileRow]
) -> None:
    table = ProfileTable([ONE, TWO, UNKNOWN])
    assert of_other_kind(chain(1), table, ["cpu"], processes) == wrong


def test_rows_that_no_plan_uses_are_not_wrong() -> None:
    keys = (replace(TWO.key, gpu="other"), replace(TWO.key, task="other"), replace(TWO.key, variant="other"))
    elsewhere = [replace(TWO, key=key) for key in keys]
    assert of_other_kind(chain(1), ProfileTable(elsewhere), ["cpu"], "streams") == []


def test_only_rows_of_several_instances_count_for_a_kind() -> None:
    streams = [replace(TWO, key=replace(TWO.key, batch=batch), processes="streams") for batch in (4, 8)]
    assert list(kinds([ONE, TWO, UNKNOWN, *streams]).items()) == [("streams", 2), ("mps", 1)]


def test_the_refusal_names_the_first_line_and_what_to_do() -> None:
    later = replace(TWO, key=replace(TWO.key, batch=2))
    text = str(refusal([TWO, later], "streams", "app/profiles.csv", {TWO.key: 7, later.key: 4}))
    assert text.startswith("app/profiles.csv:4: 2 instances of t0.v0 and 1 more were measured as processes under MPS")
    assert "but the cluster serves instances of one tritonserver; write `processes: mps` in cluster.yaml" in text
