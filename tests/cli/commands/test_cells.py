"""`cells create`, and what the other subcommands refuse. `tests/e2e/test_cells.py` deploys cells."""

import json
from pathlib import Path

import click
import pytest
import yaml

from jigsaw_triton.api.cells import Cells
from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.api.fronts import FrontFile
from jigsaw_triton.cli.commands import cells
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.errors import JigsawError
from tests.cli.commands.test_deploy import REFUSING
from tests.cli.conftest import Run
from tests.fakes.controller import FakeController

pytestmark = pytest.mark.slow

HEAD = "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n  nodes:\n"
NODES = "".join(f"    - {{name: n{node}, gpus: [{{model: cpu}}]}}\n" for node in range(4))


@pytest.fixture
def planned(run: Run, app: Path) -> Path:
    """Plan with two cells for cluster.yaml beside it."""
    Path("cluster.yaml").write_text(HEAD + NODES)
    result = run("plan", app, "--cluster", "cluster.yaml", "--demand", "200", "--cells", "2", "-O", "plan.json")
    assert result.exit_code == 0, result.stderr
    return Path("plan.json")


def create(run: Run, app: Path, *more: str) -> str:
    result = run("cells", "create", app, "--cluster", "cluster.yaml", "--plan", "plan.json", "-O", "cells", *more)
    return result.stdout if result.exit_code == 0 else f"{result.exit_code}: {result.stderr}"


def test_a_folder_is_written_for_each_cell(run: Run, app: Path, planned: Path) -> None:
    assert create(run, app) == "wrote cell1 and cell2 and front.yaml to cells\n"
    front = yaml.safe_load(Path("cells/front.yaml").read_text())["spec"]
    assert [cell["weights"] for cell in front["cells"]] == [{"hello": 0.5}, {"hello": 0.5}]
    cell = yaml.safe_load(Path("cells/cells/cell2/cell.yaml").read_text())["spec"]
    assert cell == {"graphs": {"hello": str(app)}, "demand": {"hello": 100}}
    expected = json.loads(planned.read_text())["cells"][1]["plan"]
    assert json.loads(Path("cells/cells/cell2/plan.json").read_text()) == expected
    requests = [found.request(objective="slices") for found in Cells("cells").cells]
    assert [request.demand for request in requests] == [{"hello": 100}, {"hello": 100}]
    assert requests[0].read().cluster.gpus[0].id.node == "n0"


def test_a_plan_of_one_cell_is_one_cell(run: Run, app: Path) -> None:
    Path("cluster.yaml").write_text(HEAD + NODES)
    run("plan", app, "--cluster", "cluster.yaml", "--demand", "20", "--cells", "auto", "-O", "plan.json")
    assert create(run, app) == "wrote cell1 and front.yaml to cells\n"
    assert len(Cells("cells").cells) == 1


def test_files_are_replaced_only_on_request(run: Run, app: Path, planned: Path) -> None:
    create(run, app)
    assert "the folder has cells already" in create(run, app)
    run("plan", app, "--cluster", "cluster.yaml", "--demand", "200", "--cells", "1", "-O", "plan.json")
    assert create(run, app, "--overwrite") == "wrote cell1 and front.yaml to cells\n"
    assert [cell.name for cell in Cells("cells").cells] == ["cell1"]


def test_gateways_may_have_certificates(run: Run, app: Path, planned: Path) -> None:
    assert "2: " in create(run, app, "--gateway-certificates", "fronts/gateway")
    for command in (("create",), ("issue", "gateway")):
        assert run("certificates", *command, "--folder", "fronts").exit_code == 0
    assert (
        create(run, app, "--gateway-certificates", "fronts/gateway")
        == "wrote cell1 and cell2 and front.yaml to cells\n"
    )
    front = FrontFile("cells").read()
    assert front.gateway_tls is not None and front.gateway_tls.name_of("127.0.0.1") == "gateway.node.jigsaw-triton"
    edges = [cell.request().read().cluster.edge for cell in Cells("cells").cells]
    assert [edge.tls.cert for edge in edges if edge and edge.tls] == [
        str(Path("fronts/gateway/cert.pem").resolve())
    ] * 2
    assert len({edge.metrics for edge in edges if edge}) == 2


def test_wrong_hosts_are_refused(run: Run, app: Path, planned: Path) -> None:
    for more, message in (
        (("--gateway-host", "cell1"), "--gateway-host: 'cell1' is not CELL=HOST"),
        (("--gateway-host", "cell3=a"), "the plan has no cell 'cell3'"),
        (("--gateway-host", "cell1=a:8000"), "'a:8000' is not a host name or an address"),
        (("--standby-host", "cell1=a", "--standby-host", "cell1=b"), "'cell1' has two values"),
    ):
        answer = create(run, app, *more)
        assert answer.startswith("2: ")
        assert message in answer


def test_graphs_and_nodes_must_be_those_of_the_plan(run: Run, app: Path, planned: Path, named: object) -> None:
    other = named("other")  # type: ignore[operator]
    assert "the plan does not serve other" in create(run, app, str(other))
    Path("cluster.yaml").write_text(HEAD + NODES.replace("n3", "n4"))
    assert "node n3 is in only one of the plan and the cluster" in create(run, app)


def test_cells_that_do_not_exist_are_named(run: Run, app: Path, planned: Path) -> None:
    missing = run("cells", "deploy", "nowhere")
    assert missing.exit_code == 2 and "there are no cells here" in missing.stderr
    create(run, app)
    result = run("cells", "down", "cells", "--cell", "cell9")
    assert result.exit_code == 2 and "there is no cell 'cell9'" in result.stderr


def test_cells_that_are_not_deployed_are_shown_as_such(run: Run, app: Path, planned: Path) -> None:
    create(run, app)
    result = run("cells", "status", "cells")
    assert result.exit_code == 4
    assert [line.split()[:3] for line in result.stdout.splitlines()[1:3]] == [
        ["cell1", "not", "deployed"],
        ["cell2", "not", "deployed"],
    ]
    down = run("cells", "down", "cells")
    assert down.exit_code == 4 and "nothing is deployed here" in down.stderr


def test_a_cell_that_cannot_be_taken_down_keeps_no_other_one(
    run: Run, app: Path, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(run, app)
    ended = []

    def down(self: Deployment, **_: object) -> None:
        if self.paths.state.parent.name == "cell1":
            raise JigsawError("the controller does not answer")
        ended.append(self.paths.state.parent.name)

    monkeypatch.setattr(Deployment, "down", down)
    result = run("cells", "down", "cells")
    assert (result.exit_code, ended) == (1, ["cell2"])
    assert "cell cell1: the controller does not answer" in result.stderr


def test_several_cells_do_not_share_the_real_gpus_of_one_machine(run: Run, app: Path, planned: Path) -> None:
    create(run, app)
    for name in ("cell1", "cell2"):
        file = Path("cells/cells", name, "cluster.yaml")
        file.write_text(file.read_text().replace("emulated", "nvml").replace("model: cpu", "model: A30-24GB"))
    result = run("cells", "deploy", "cells")
    assert result.exit_code == 2
    assert "several cells cannot use the GPUs of one machine" in result.stderr


def test_a_cell_without_a_plan_is_named_before_any_starts(run: Run, app: Path, planned: Path) -> None:
    create(run, app)
    file = Path("cells/cells/cell2/cell.yaml")
    file.write_text(file.read_text().replace("hello: 100", "hello: 1000000"))
    result = run("cells", "deploy", "cells")
    assert result.exit_code == 3
    assert "cell cell2" in result.stderr
    assert not Path("cells/cells/cell1/state/controller.lock").exists()


@pytest.mark.parametrize(("flags", "code"), [((), 4), (("--yes",), 0)])
def test_an_update_that_will_refuse_requests_asks_before_any_cell_changes(
    run: Run, app: Path, planned: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], code: int
) -> None:
    create(run, app)
    fake = FakeController().install(monkeypatch)
    monkeypatch.setattr(cells, "show_rollout", lambda *_: REFUSING)
    monkeypatch.setattr(cells, "cells_view", lambda _: ["the status"])
    monkeypatch.setattr(Output, "interactive", property(lambda _: True))
    monkeypatch.setattr(click, "confirm", lambda *_, **__: False)
    result = run("cells", "deploy", "cells", "--cell", "cell1", "--otlp", "http://collector:4318", *flags)
    assert result.exit_code == code, result.stderr
    assert "cell cell1:\n" in result.stderr
    assert ("requests will be refused during this change" in result.stderr) == (not flags)
    assert [request["otlp"] for request in fake.requests] == (["http://collector:4318"] if flags else [])


def test_each_controller_has_a_port_of_its_own_for_metrics(
    run: Run, app: Path, planned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(run, app)
    made: list[dict[str, object]] = []
    monkeypatch.setattr("jigsaw_triton.api.cells.Deployment", lambda _, **options: made.append(options))
    Cells("cells", controller_metrics="0.0.0.0:8104", log_format="json")
    Cells("cells", ["cell2"], controller_metrics=8104)
    assert [options["controller_metrics"] for options in made] == ["0.0.0.0:8104", "0.0.0.0:8105", "127.0.0.1:8105"]
    assert [options["log_format"] for options in made] == ["json", "json", None]
    result = run("cells", "deploy", "cells", "--controller-metrics", "http")
    assert result.exit_code == 2 and "--controller-metrics" in result.stderr


def test_mistakes_in_a_cell_have_their_line(run: Run, app: Path, planned: Path) -> None:
    create(run, app)
    file = Path("cells/cells/cell1/cell.yaml")
    file.write_text(file.read_text().replace("demand:", "demands:"))
    result = run("cells", "deploy", "cells")
    assert result.exit_code == 2
    assert "cell.yaml:6: unknown key 'demands' in spec; did you mean 'demand'?" in result.stderr
