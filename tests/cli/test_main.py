import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from console.build import MODE_VARIABLE
from jigsaw_triton import __version__
from jigsaw_triton.cli.commands import show
from jigsaw_triton.cli.inputs.options import Command, Option
from jigsaw_triton.cli.main import COMMANDS, program
from jigsaw_triton.servers.os_process import start_time
from tests.cli.conftest import Run
from tests.waiting import eventually

pytestmark = pytest.mark.slow

NAMES = [name for section in COMMANDS.values() for name in section]
GROUPS = {
    "cells": ["create", "deploy", "status", "down"],
    "certificates": ["create", "issue", "show"],
    "node": ["list", "cordon", "uncordon", "drain"],
    "evaluate": ["ablation", "rehearse", "replay", "trials"],
    "export": ["systemd", "compose", "envoy", "kubernetes"],
    "mig": ["list", "enable", "apply", "assert", "export"],
    "profiles": ["check", "fit", "import", "report"],
}
LEAVES = [
    leaf for name in NAMES for leaf in ([f"{name} {word}" for word in GROUPS[name]] if name in GROUPS else [name])
]
"""Commands without groups."""

ROOT = Path(__file__).parents[2]
HEAVY = ("aiohttp", "google", "jinja2", "numpy", "pulp", "pydantic", "rich", "torch", "tritonclient", "yaml")


def child(*args: str | Path, **variables: str) -> subprocess.Popen[str]:
    """Starts the program in another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "jigsaw_triton.cli.main", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def loaded(name: str) -> Command:
    command: click.Command | None = program
    for word in name.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert isinstance(command, Command)
    return command


def test_every_command_of_a_group_is_a_leaf() -> None:
    found = []
    for name in NAMES:
        command = program.get_command(click.Context(program), name)
        found += [f"{name} {word}" for word in command.commands] if isinstance(command, click.Group) else [name]
    assert found == LEAVES


@pytest.mark.parametrize("args", [(), ("--help",), ("-h",)])
def test_the_help_lists_every_command(run: Run, args: tuple[str, ...]) -> None:
    result = run(*args)
    assert result.exit_code == 0
    for name in NAMES:
        assert re.search(rf"^  {name} +\S", result.stdout, re.MULTILINE)


def test_the_version_is_printed(run: Run) -> None:
    assert run("--version").stdout == f"jigsaw-triton {__version__}\n"


@pytest.mark.parametrize("arg", ["--help", "--version"])
def test_help_and_version_import_no_heavy_module(arg: str) -> None:
    code = (
        "import sys\n"
        "from jigsaw_triton.cli.main import program\n"
        f"try: program.main([{arg!r}])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ran.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.exit_code == 0
    assert f"\nExamples:\n  jigsaw-triton {name}" in result.stdout
    assert all(example.startswith(f"{name} ") or example == name for example in loaded(name).examples)


@pytest.mark.parametrize("name", LEAVES)
def test_the_options_in_the_examples_exist(name: str) -> None:
    command = loaded(name)
    known = {flag for param in command.params for flag in param.opts}
    for example in command.examples:
        assert {word.split("=")[0] for word in example.split() if word.startswith("-")} <= known


@pytest.mark.parametrize("name", LEAVES)
def test_every_option_has_its_environment_variable(name: str) -> None:
    options = [param for param in loaded(name).params if isinstance(param, click.Option)]
    assert {"out"} <= {option.name for option in options}
    for option in options:
        assert isinstance(option, Option)
        long = next(flag for flag in option.opts if flag.startswith("--"))
        variable = long[2:].replace("-", "_").upper()
        assert option.envvar in (
            f"JIGSAW_{variable}",
            f"JIGSAW_FRONT_{variable}",
            "JIGSAW_MEASURE_ACCURACY",
            "JIGSAW_CONSOLE_ADDRESS",
            "JIGSAW_CONSOLE_PORT",
        )


def test_a_variable_of_the_installation_is_no_option() -> None:
    variables = {param.envvar for name in LEAVES for param in loaded(name).params}
    assert MODE_VARIABLE not in variables


def test_a_front_takes_nothing_from_the_variables_of_a_deployment() -> None:
    variables = {f"JIGSAW_{name}" for name in ("ADDRESS", "GRPC", "HTTP", "METRICS", "STATE")}
    assert variables <= {param.envvar for param in loaded("deploy").params}
    assert not variables & {param.envvar for param in loaded("front").params}


def test_an_environment_variable_is_a_flag_for_all_commands_or_for_none() -> None:
    flags: dict[object, set[bool]] = {}
    for name in LEAVES:
        for param in loaded(name).params:
            if isinstance(param, click.Option):
                flags.setdefault(param.envvar, set()).add(param.is_flag)
    assert {variable for variable, kinds in flags.items() if len(kinds) > 1} == set()


def test_an_environment_variable_sets_an_option(run: Run, app: Path) -> None:
    result = run("show", app, env={"JIGSAW_FORMAT": "mermaid"})
    assert result.stdout.startswith("flowchart LR")
    assert run("show", app, env={"JIGSAW_OUTPUT": "json"}).stdout.startswith("{")


def test_a_wrong_environment_variable_is_named(run: Run, app: Path) -> None:
    result = run("show", app, env={"JIGSAW_FORMAT": "png"})
    assert result.exit_code == 2
    assert "JIGSAW_FORMAT" in result.stderr


def test_an_unknown_command_has_a_hint(run: Run) -> None:
    result = run("vaildate")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "There is no command 'vaildate'; did you mean 'validate'?" in result.stderr
    assert "jigsaw-triton --help" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("show",), "Missing argument 'GRAPH'"),
        (("show", "x", "--foo"), "No such option '--foo'"),
        (("show", "x", "-o", "yaml"), "'yaml' is not one of 'table', 'json'"),
        (("bench", "x", "--duration", "0"), "Invalid value for '--duration'"),
    ],
)
def test_a_usage_error_exits_with_2_and_names_the_help(run: Run, args: tuple[str, ...], message: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert f"hint: see `jigsaw-triton {args[0]} --help`" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unexpected_error_is_printed_on_one_line(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(show, "load_graph", broken)
    result = run("show", app)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected ZeroDivisionError: by zero\nhint: ")
    assert "--debug" in result.stderr
    for result in (run("show", app, "--debug"), run("show", app, env={"JIGSAW_DEBUG": "1"})):
        assert result.exit_code == 1
        assert "Traceback" in result.stderr


def test_the_result_of_a_command_is_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show.command, "callback", lambda **_: 4)
    assert run("show", "x").exit_code == 4


def test_an_interrupt_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show.command, "callback", interrupted)
    result = run("show", "x")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_program_and_its_children(
    tmp_path: Path, app: Path, number: signal.Signals, status: int
) -> None:
    # The fake perf_analyzer runs forever and starts another program, as the packaged one does.
    marks, listener = tmp_path / "pids", "import socket; s = socket.create_server(('127.0.0.1', 0)); "
    fake = tmp_path / "bin" / "perf_analyzer"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\nsleep 100 &\necho $$ $! > {marks}.part; mv {marks}.part {marks}\nwait\n")
    fake.chmod(0o755)
    code = (
        "from pathlib import Path\n"
        "from jigsaw_triton.cli.commands import bench\n"
        "from jigsaw_triton.cli import main\n"
        f"{listener}\n"
        f"bench.find_perf_analyzer = lambda: Path({str(fake)!r})\n"
        # A shell starts background processes with SIGINT ignored, which the test would inherit.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"import sys; sys.argv = ['x', 'bench', {str(app)!r}, '--state', {str(tmp_path / 'state')!r},\n"
        "  '--url', '127.0.0.1:%d' % s.getsockname()[1]]\n"
        "main.main()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as process:
        while not marks.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        started = {pid: start_time(pid) for pid in map(int, marks.read_text().split())}
        process.send_signal(number)
        _, stderr = process.communicate()
    assert process.returncode == status
    assert "Traceback" not in stderr
    # The children were killed, which takes the kernel a moment.
    eventually(lambda: not any(begun is not None and start_time(pid) == begun for pid, begun in started.items()))


@pytest.mark.slow
@pytest.mark.parametrize("args", [("validate", "--schema", "graph"), ("--help",)])
def test_a_closed_pipe_ends_the_program_without_a_message(args: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "jigsaw_triton.cli.main", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert ran.stderr == ""
    assert ran.returncode == 1


def test_results_go_to_stdout_and_messages_to_stderr(app: Path) -> None:
    with child("plan", app, "--gpus", "1xcpu", "--demand", "20", "-o", "json") as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0
    assert stdout.startswith("{")
    assert "planning" in stderr
