from urllib.parse import quote

from jigsaw_triton.runtime.chains import joined, members


def test_the_name_of_a_chain_can_be_split_into_its_tasks() -> None:
    assert members(joined(["crop", "detect", "name-it"])) == ("crop", "detect", "name-it")
    assert members(joined(["crop"])) == ("crop",)


def test_the_name_of_a_chain_needs_no_encoding_in_a_url() -> None:
    assert quote(joined(["crop", "detect"])) == joined(["crop", "detect"])
