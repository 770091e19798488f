from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.foreign import with_foreign
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, MigInstance, Placement


def test_reported_instances_override_those_of_the_document() -> None:
    gpu = Gpu(GpuId("a", 0), CATALOG["A100-80GB"], (Placement(0, "2g"), Placement(6, "1g")))
    there = [
        MigInstance(GpuId("a", 0), Placement(1, "1g"), "MIG-1"),
        MigInstance(GpuId("b", 0), Placement(0, "1g"), ""),
    ]
    (known,) = with_foreign(Cluster((gpu,)), there).gpus
    assert known.foreign == (Placement(1, "1g"), Placement(6, "1g"))
    assert with_foreign(Cluster((gpu,)), ()) == Cluster((gpu,))
