from dataclasses import replace

import pytest

from jigsaw_triton.controller.core.immutable_settings import check_ground
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, ServerImage
from jigsaw_triton.gpus.model import Agents, Cluster, RayCluster

PLAIN = Cluster(())
BEHIND = replace(PLAIN, edge=Edge())
AGENTS = replace(PLAIN, agents=Agents((("a", "10.0.0.1:7440"),), "/one"))
MORE = replace(PLAIN, agents=Agents((("a", "10.0.0.1:7440"), ("b", "10.0.0.2:7440")), "/one"))


def test_settings_of_the_edge_may_change_while_it_is_running() -> None:
    check_ground(BEHIND, replace(PLAIN, edge=Edge(limits=EdgeLimits(body_mib=1))))


def test_nodes_may_come_and_go() -> None:
    check_ground(AGENTS, MORE)
    check_ground(MORE, AGENTS)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (PLAIN, BEHIND, "the edge cannot be added while the gateway serves; take it down first"),
        (BEHIND, PLAIN, "the edge cannot be removed while the gateway serves"),
        (
            PLAIN,
            AGENTS,
            "the engine cannot change from `local` to `agents` while a deployment runs; take it down first",
        ),
        (AGENTS, replace(PLAIN, agents=Agents((("a", ""),), "/one", RayCluster())), "from `agents` to `ray` while"),
        (AGENTS, PLAIN, "the engine cannot change from `agents` to `local`"),
        (
            AGENTS,
            replace(PLAIN, agents=Agents((("a", "10.0.0.1:7440"),), "/two")),
            "/two: the folder of the certificates cannot change while a deployment runs; replace the files in /one",
        ),
        (PLAIN, replace(PLAIN, gateway_image=ServerImage("x:1")), "the gateway's image cannot change"),
        (PLAIN, replace(PLAIN, image=ServerImage("x:1")), "image cannot change from this machine's tritonserver to"),
    ],
)
def test_immutable_settings_cannot_change(before: Cluster, after: Cluster, words: str) -> None:
    with pytest.raises(StateError, match=words):
        check_ground(before, after)
