import pytest

from docs.generators.python import members


def test_a_deployment_has_the_methods_of_its_asynchronous_form() -> None:
    plain, asynchronous = members("Deployment", "AsyncDeployment").split("\n\n")
    assert "\n    options:\n      inherited_members: true\n      members: [" in plain
    methods = plain.partition("[")[2].removesuffix("]").split(", ")
    assert {"status", "update", "rollback", "down"} <= set(methods)
    assert "of" not in methods
    assert asynchronous == "::: jigsaw_triton.AsyncDeployment"


def test_a_name_that_is_not_public_is_refused() -> None:
    with pytest.raises(LookupError, match="no public name Rollout"):
        members("Deployment", "Rollout")
