from urllib.parse import quote

from jigsaw_triton.runtime.chains import joined, members


def test_a_chain_is_known_by_its_tasks() -> None:
    assert members(joined(["crop", "detect", "name-it"])) == ("crop", "detect", "name-it")
    assert members(joined(["crop"])) == ("crop",)


def test_its_name_stands_in_a_url_as_it_is() -> None:
    assert quote(joined(["crop", "detect"])) == joined(["crop", "detect"])
