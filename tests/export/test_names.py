import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.export import names
from jigsaw_triton.spec.words import NAME_PATTERN


@pytest.mark.parametrize("name", ["a", "a-b", "9", "x" * 63])
def test_dns_labels_are_accepted(name: str) -> None:
    assert names.check_label(name, "namespace", where="x") == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a.b", "x" * 64, "a\n", "ä"])
def test_other_labels_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"namespace .* is not a DNS label") as caught:
        names.check_label(name, "namespace", where="--namespace")
    assert caught.value.where == "--namespace"
    assert caught.value.hint


@pytest.mark.parametrize("name", ["a", "a.b", "*.models.example"])
def test_dns_names_are_accepted(name: str) -> None:
    assert names.check_domain(name, "host name", where="x") == name


@pytest.mark.parametrize("name", ["", "a..b", "a.", "*", "a.*.b", "x" * 254, "a b"])
def test_other_dns_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is not a DNS name"):
        names.check_domain(name, "host name", where="x")


@pytest.mark.parametrize("image", ["nvcr.io/nvidia/tritonserver:24.10-py3", "a@sha256:0123"])
def test_images_are_accepted(image: str) -> None:
    assert names.check_image(image, where="x") == image


@pytest.mark.parametrize("image", ["", "--privileged", "a b", "a;b", "$(x)"])
def test_other_images_are_refused(image: str) -> None:
    with pytest.raises(InputError, match="is not the name of an image"):
        names.check_image(image, where="x")


@pytest.mark.parametrize("address", ["0.0.0.0:7440", "10.0.0.1:1", "[::]:65535", "[fe80::1]:80"])
def test_addresses_to_listen_on_are_accepted(address: str) -> None:
    assert names.check_listen(address, where="x") == address


@pytest.mark.parametrize(
    "address", ["", "7440", "0.0.0.0", "0.0.0.0:0", "0.0.0.0:65536", "::1:80", "300.1.1.1:80", "a:1"]
)
def test_other_addresses_to_listen_on_are_refused(address: str) -> None:
    with pytest.raises(InputError, match="is not an IP address with a port"):
        names.check_listen(address, where="x")


@pytest.mark.parametrize("size", ["20Gi", "512Mi", "1Ti"])
def test_sizes_are_accepted(size: str) -> None:
    assert names.check_quantity(size, where="x") == size


@pytest.mark.parametrize("size", ["", "20", "20GB", "0Gi", "-1Gi", "1.5Gi"])
def test_other_sizes_are_refused(size: str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        names.check_quantity(size, where="x")


@pytest.mark.parametrize("user", ["", "Ann", "a b", "0a", "x" * 32, "a;b"])
def test_other_users_are_refused(user: str) -> None:
    with pytest.raises(InputError, match="is not the name of a user"):
        names.check_user(user, where="x")


@pytest.mark.parametrize("node", ["", "a b", "-a", "a\n"])
def test_other_nodes_are_refused(node: str) -> None:
    with pytest.raises(InputError, match="is not the name of a node"):
        names.check_node(node, where="x")


@given(st.lists(st.from_regex(NAME_PATTERN, fullmatch=True), unique=True, max_size=4))
def test_each_graph_has_a_label_of_its_own_or_is_refused(graphs: list[str]) -> None:
    try:
        labels = names.labels_of(graphs, where="x")
    except InputError as error:
        assert "same name" in error.message
        return
    assert list(labels) == graphs
    assert len(set(labels.values())) == len(graphs)
    for label in labels.values():
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", label)


def test_graphs_whose_labels_are_alike_are_refused() -> None:
    with pytest.raises(InputError, match="the graphs Read_er and read-er would have the same name read-er"):
        names.labels_of(["Read_er", "read-er"], where="x")
