import pytest

from jigsaw_triton.compiler import names
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement


def test_a_worker_is_named_after_its_place() -> None:
    assert names.worker(GpuId("node-a", 12), Placement(4, "1gx2")) == "node-a-12-1gx2-4"


def test_models_carry_their_generation() -> None:
    assert names.worker_model("traffic", "detect", "s", 7) == "traffic.detect.s.g7"
    assert names.route("traffic", "detect", 7) == "traffic.detect.g7"
    assert names.step_model("traffic", "crop", 7) == "traffic.crop.step.g7"
    assert names.pipeline("traffic", 7) == "traffic.pipeline.g7"
    assert names.pipeline("traffic", 7, apart=True) == "traffic.pipeline.apart.g7"


def test_a_steps_worker_is_named_after_its_graph() -> None:
    assert names.steps_worker("traffic") == "steps-traffic"


def test_equal_names_of_two_models_are_refused() -> None:
    names.require_unique(["a", "b"], where="gateway")
    with pytest.raises(InputError, match="gateway: two models would be named 'a'; rename"):
        names.require_unique(["a", "b", "a"], where="gateway")
