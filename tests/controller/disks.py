"""Full disks, simulated for a journal."""

from jigsaw_triton.controller.persistence.journal import Journal


def fill_disk(journal: Journal) -> None:
    """Leaves SQLite no page to add to the file, as on a full disk."""
    assert journal._file is not None
    journal._file.execute("PRAGMA max_page_count=1")
    journal.event("noise", "x" * 2**16)


def free_disk(journal: Journal) -> None:
    """Undoes `fill_disk`."""
    assert journal._file is not None
    journal._file.execute("PRAGMA max_page_count=1000000")
