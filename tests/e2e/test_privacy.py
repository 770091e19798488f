"""The view that other users of the machine have of a deployment, from before its start until after its end."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.app import write_application
from tests.e2e.clients import PROTOCOLS, Client, expected
from tests.e2e.system import System, free_ports
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e

WATCH = """
import json, os, select, sys
from pathlib import Path
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
commands, regions = set(), {}
while not select.select([sys.stdin], [], [], 0)[0]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            commands.add((process / "cmdline").read_bytes().decode(errors="replace"))
            commands.add((process / "environ").read_bytes().decode(errors="replace"))
        except OSError:
            pass
    for region in os.scandir("/dev/shm"):
        try:
            regions.setdefault(region.name, set()).add(region.stat().st_mode & 0o777)
        except OSError:
            pass
modes = {name: sorted(modes) for name, modes in regions.items()}
json.dump({"user": os.getuid(), "commands": sorted(commands), "regions": modes}, sys.stdout)
"""
CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  nodes: [{{name: local, gpus: [{{model: cpu, count: 2}}]}}]
  edge: {{kind: haproxy, metrics: {metrics}}}
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look as another user")
def test_another_user_never_sees_the_secret_nor_a_tensor(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    (tmp_path / "cluster.yaml").write_text(CLUSTER.format(metrics=free_ports(1)[0]))
    watching = [sys.executable, "-I", "-S", "-c", WATCH]
    with subprocess.Popen(watching, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        system.deploy(app, "--cluster", tmp_path / "cluster.yaml", "--demand", 5)
        secret = (system.state / "secret").read_text()
        for protocol in PROTOCOLS:
            with Client(system, protocol) as client:
                assert client.squares([3]) == expected([3])
        private = (system.state, *system.state.iterdir(), *(system.state / "logs").iterdir(), system.run_dir)
        open_to_others = [path for path in (*private, *system.run_dir.rglob("*")) if is_open(path)]
        sockets = [path for path in system.run_dir.rglob("*") if path.is_socket()]
        prefixes = tuple({path.name.rpartition("-")[0] for path in system.regions()})
        assert system.run("down").code == 0
        out, _ = other.communicate("", timeout=WAIT_LIMIT_S)
    seen = json.loads(out)
    assert seen["user"] != os.getuid()
    started = [line for line in seen["commands"] if str(system.run_dir) in line]
    for program in ("/tritonserver\0", "haproxy", "triton_python_backend_stub"):
        assert any(program in line for line in started), program
    assert [line for line in seen["commands"] if secret in line] == []
    regions = {name: modes for name, modes in seen["regions"].items() if name.startswith(prefixes)}
    assert regions and set(map(tuple, regions.values())) == {(0o600,)}
    assert len(sockets) > 3
    assert open_to_others == []


def is_open(path: Path) -> bool:
    """True if other users have a right on a file or folder itself."""
    return not path.is_symlink() and bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
