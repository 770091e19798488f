from jigsaw_triton.console.plan_changes import plan_changes
from jigsaw_triton.controller.persistence.records import JournalEvent, Revision


def revision(number: int, second: int, outcome: str, by: str = "load", slices: int = 2) -> Revision:
    return Revision(number, f"2026-03-04T05:00:{second:02}+00:00", by, "more load", slices, 14, outcome)


def ready(second: int) -> JournalEvent:
    return JournalEvent(1, f"2026-03-04T05:00:{second:02}+00:00", "ready", "", 0)


def test_changes_are_between_generations_that_served() -> None:
    revisions = [
        revision(1, 0, "replaced", by="user"),
        revision(2, 10, "failed"),
        revision(3, 11, "unchanged"),
        revision(4, 20, "stopped", slices=5),
        revision(5, 30, "replaced", by="user"),
        revision(6, 40, "serves"),
        revision(7, 50, ""),
    ]
    other = JournalEvent(1, "2026-03-04T05:00:22+00:00", "error", "", 0)
    found = list(plan_changes(revisions, [ready(2), other, ready(24), ready(31)]))
    assert [change.after.number for change in found] == [1, 4, 5, 6]
    assert [change.before.number if change.before is not None else 0 for change in found] == [0, 1, 0, 5]
    assert [change.seconds for change in found] == [2.0, 4.0, 1.0, None]
    assert [change.summary for change in found] == [
        "generation 1 on 2 slices, by the user",
        "generation 1 to 4, 2 to 5 slices, by the load",
        "generation 5 on 2 slices, by the user",
        "generation 5 to 6, 2 to 2 slices, by the load",
    ]
    assert found[1].t - found[0].t == 20
