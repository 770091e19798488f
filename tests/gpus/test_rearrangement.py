from jigsaw_triton.gpus.model import GpuId, MigInstance, Placement
from jigsaw_triton.gpus.rearrangement import rearrangement

GPU = GpuId("n", 0)


def instance(start: int, kind: str, uuid: str = "") -> MigInstance:
    return MigInstance(GPU, Placement(start, kind), uuid or f"MIG-{start}")


def test_instances_of_the_new_layout_stay() -> None:
    present = [instance(4, "3g"), instance(0, "1g"), instance(1, "1g")]
    change = rearrangement(GPU, present, (Placement(0, "2g"), Placement(4, "3g")))
    assert change.stay == (present[0],)
    assert change.destroy == (present[1], present[2])
    assert change.create == (Placement(0, "2g"),)
    assert not change.empty


def test_an_unchanged_layout_needs_no_changes() -> None:
    assert rearrangement(GPU, [instance(0, "7g")], (Placement(0, "7g"),)).empty


def test_a_half_made_instance_is_replaced_even_at_a_wanted_placement() -> None:
    half = instance(0, "7g", "GPU-1/0")
    change = rearrangement(GPU, [half], (Placement(0, "7g"),))
    assert (change.destroy, change.create) == ((half,), (Placement(0, "7g"),))
