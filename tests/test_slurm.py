"""The script of a Slurm job, with stand-ins for Slurm and jigsaw-triton."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from jigsaw_triton.api.files import Mistakes, read_cluster
from tests.waiting import WAIT_LIMIT_S, eventually

SCRIPT = Path(__file__).resolve().parents[1] / "launch" / "slurm" / "jigsaw-triton.sbatch"

PROGRAMS = {
    # One task for each node, at the same time. The signal to the step reaches all of them.
    "srun": """\
while [ "${1#--}" != "$1" ]; do shift; done
trap 'kill -TERM $tasks' TERM
for node in $NODES; do SLURMD_NODENAME=$node "$@" & tasks="$tasks $!"; done
while ! wait; do :; done
""",
    "scontrol": 'echo "$*" >> "$CALLS"; printf "%s\\n" $NODES',
    "jigsaw-triton": """\
echo "$*" >> "$CALLS"
case $1 in
  certificates) [ "$2" = create ] || { mkdir -p "$5/$3"; touch "$5/$3/cert.pem" "$5/$3/key.pem" "$5/$3/ca.pem"; } ;;
  agent) trap 'exit 0' TERM; [ -e "$DIED" ] || { touch "$DIED"; exit 1; }; while :; do sleep 0.1; done ;;
  deploy) [ "$(grep -c ^deploy "$CALLS")" -gt 1 ] || exit 1; exit "$DEPLOY" ;;
esac
""",
}


def start(folder: Path, *, deploy: int = 0) -> "subprocess.Popen[str]":
    (folder / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (folder / "bin" / name).chmod(0o755)
    variables = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "NODES": "n1 n2",
        "CALLS": str(folder / "calls"),
        "DIED": str(folder / "died"),
        "DEPLOY": str(deploy),
        "TMPDIR": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_SUBMIT_DIR": str(folder),
    }
    command = ["bash", str(SCRIPT), "app", "A100-80GB", "8", "100", "--objective", "accuracy"]
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True, start_new_session=True)


def calls(folder: Path, begin: str) -> list[str]:
    path = folder / "calls"
    return [line for line in path.read_text().splitlines() if line.startswith(begin)] if path.exists() else []


def wait_for(folder: Path, begin: str, count: int) -> list[str]:
    return eventually(
        lambda: found if len(found := calls(folder, begin)) >= count else [], lambda: calls(folder, begin)
    )


@pytest.mark.slow
def test_a_job_deploys_on_its_nodes_and_takes_the_deployment_down(tmp_path: Path) -> None:
    job = start(tmp_path)
    try:
        folder = tmp_path / "jigsaw-triton-7"
        # The first deploy fails, because the agents do not listen yet, and so does the first agent.
        *_, deploy = wait_for(tmp_path, "deploy", 2)
        assert f"deploy app --cluster {folder}/cluster.yaml --demand 100 --state {folder}/controller" in deploy
        assert deploy.endswith("--objective accuracy")
        agents = wait_for(tmp_path, "agent", 3)
        for node in ("n1", "n2"):
            state = tmp_path / f"jigsaw-triton-7-{node}"
            options = f"--certificates {folder}/certificates/{node} --state {state}"
            assert f"agent --name {node} --listen 0.0.0.0:7440 {options}" in agents
        mistakes = Mistakes()
        cluster = read_cluster(mistakes, cluster=folder / "cluster.yaml", driver="emulated")
        mistakes.raise_if_any()
        assert cluster is not None and cluster.agents is not None
        assert cluster.agents.addresses == (("n1", "n1:7440"), ("n2", "n2:7440"))
        assert len(cluster.gpus) == 16
        job.send_signal(signal.SIGTERM)
        assert job.communicate(timeout=WAIT_LIMIT_S)[0] == f"{folder}\n"
        assert sorted(calls(tmp_path, "down")) == sorted(
            f"down --state {state}"
            for state in (f"{folder}/controller", *(f"{tmp_path}/jigsaw-triton-7-{node}" for node in ("n1", "n2")))
        )
    finally:
        os.killpg(job.pid, signal.SIGKILL) if job.poll() is None else None


@pytest.mark.slow
def test_a_job_that_is_cancelled_before_it_serves_deploys_no_more(tmp_path: Path) -> None:
    job = start(tmp_path, deploy=1)
    try:
        wait_for(tmp_path, "deploy", 1)
        job.send_signal(signal.SIGTERM)
        job.communicate(timeout=WAIT_LIMIT_S)
        assert job.returncode == 143
        down = f"down --state {tmp_path}/jigsaw-triton-7/controller"
        after = calls(tmp_path, "")[calls(tmp_path, "").index(down) :]
        assert [call for call in after if call.startswith("deploy")] == []
    finally:
        os.killpg(job.pid, signal.SIGKILL) if job.poll() is None else None


@pytest.mark.slow
def test_a_job_whose_input_is_wrong_ends(tmp_path: Path) -> None:
    job = start(tmp_path, deploy=2)
    try:
        job.communicate(timeout=WAIT_LIMIT_S)
        assert job.returncode == 2
        assert len(calls(tmp_path, "deploy")) == 2
    finally:
        os.killpg(job.pid, signal.SIGKILL) if job.poll() is None else None


def test_a_job_without_arguments_says_what_it_needs() -> None:
    ran = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "usage: sbatch --nodes=N" in ran.stderr


def test_the_script_passes_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    ran = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
