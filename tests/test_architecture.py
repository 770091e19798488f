"""Checks which modules may import each other, and which may do I/O. Imports inside functions count too."""

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.modules import PACKAGE, ROOT, Sources, imports, own_imports, reached, sources, uses

# A part may import the parts on earlier lines, but not those on its own line.
ORDER: tuple[tuple[str, ...], ...] = (
    ("report", "spec"),
    ("export", "graph"),
    ("gpus", "profiles"),
    ("planner",),
    ("compiler",),
    ("servers",),
    ("controller",),
    ("agent", "applications", "console", "evaluation", "front"),
    ("models",),
    ("api",),
    ("cli",),
)
ROOMS = {
    "planner": (
        "solver",
        "domain",
        "latency",
        "candidates",
        "validation",
        "formulation",
        "bounds",
        "placement",
        "capacity",
        "standby",
        "transition",
        "search",
        "cells",
        "explain",
    ),
    "controller": (
        "core",
        "persistence",
        "fleet",
        "solving",
        "planning",
        "energy",
        "executor",
        "watch",
        "gateway_counters",
        "load_meter",
        "subjects",
        "totals",
        "shell",
    ),
    "api": (
        "reporting",
        "settings",
        "machine",
        "files",
        "profile_files",
        "wanted",
        "checking",
        "file_changes",
        "graph_changes",
        "adding",
        "accuracies",
        "variants",
        "call_sites",
        "graph_builder",
        "profile_builder",
        "planning",
        "profiles",
        "setup_document",
        "compiling",
        "simulating",
        "replaying",
        "supervisor",
        "controller",
        "membership",
        "shedding",
        "request",
        "daemon",
        "programs",
        "rollout",
        "sources",
        "fronts",
        "export_input",
        "exporting",
        "observed",
        "drift",
        "reports",
        "controlled",
        "console",
        "operated",
        "rolled_out",
        "deployment",
        "cell_files",
        "cells",
        "takeover",
        "deploying",
        "rehearsing",
        "asynchronous",
    ),
    "cli": ("io", "inputs", "views", "commands", "main"),
}
"""Part -> its packages and modules, each of which may import only itself and those before it."""

LATE = frozenset(
    {
        ("graph.model", "graph.document"),
        ("graph.model", "graph.picture"),
        ("planner.domain.plan", "planner.domain.picture"),
    }
)
"""(Module, module) pairs that may close a circle: a value imports its writer or drawer when its method is called."""

RUNTIME = "runtime"
COMMON = "common"
"""Modules directly in the package, such as `errors`. All parts except `runtime` may import them."""

RUNTIME_MAY_IMPORT = frozenset({"numpy", "triton_python_backend_utils"})
RUNNERS_MAY_IMPORT = RUNTIME_MAY_IMPORT | {"PIL", "torch", "transformers"}
"""Libraries that runners may import; each runner needs the library that runs its models."""

PURE_PARTS = ("export", "graph", "report", "gpus", "profiles", "planner", "compiler")
SHELLS = frozenset(
    {
        "gpus.emulated",
        "gpus.holders",
        "gpus.nvml",
        "gpus.nvml_calls",
        "gpus.nvml_gpus",
        "gpus.nvml_library",
        "gpus.nvml_use",
        "gpus.owners",
        "planner.solver.deadline",
        "planner.solver.cbc",
        "planner.solver.highs",
        "planner.solver.solver",
        "planner.solver.worker",
        "compiler.model_config",
        "compiler.store",
        "compiler.templates",
    }
)
"""Modules of pure parts that may do I/O."""

NATIVE_ROOT = ROOT.parent / "native"
NATIVE = {
    "core": frozenset({"core"}),
    "onnx": frozenset({"core", "onnx"}),
    "triton": frozenset({"core", "onnx", "triton"}),
    "testing": frozenset({"core", "onnx", "testing", "triton"}),
}
"""Folder of the compiled backend -> folders whose headers its files may include."""

# fmt: off
IO_MODULES = frozenset({
    "aiohttp", "asyncio", "ctypes", "fcntl", "http", "logging", "multiprocessing", "os", "pynvml", "random", "requests",
    "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid",
})
IO_CALLS = frozenset({
    "open", "read_bytes", "read_text", "write_bytes", "write_text", "mkdir", "rmdir", "unlink", "rename",
    "touch", "iterdir", "glob", "rglob", "stat",
})
# fmt: on


def part(module: str) -> str:
    head, _, rest = module.partition(".")
    return head if rest or any(head in line for line in ORDER) or head == RUNTIME else COMMON


def back_imports(texts: Sources) -> list[str]:
    """Returns the imports that violate the order of parts."""
    rank = {name: i for i, line in enumerate(ORDER) for name in line}
    found = []
    for module, text in texts.items():
        mine = part(module)
        for other in sorted(own_imports(module, text, texts)):
            theirs = part(other)
            allowed = (
                theirs == mine
                or (mine in rank and theirs in rank and rank[theirs] < rank[mine])
                or (mine in rank and theirs in (COMMON, RUNTIME))
            )
            if not allowed:
                found.append(f"{module} imports {other}")
    return found


def back_imports_of_rooms(texts: Sources) -> list[str]:
    """Returns the imports that violate the order within a part."""
    found = []
    for module, text in texts.items():
        head, *below = module.split(".")
        if head not in ROOMS or not below:
            continue
        for other in sorted(own_imports(module, text, texts)):
            other_head, *other_below = other.split(".")
            if other_head != head:
                continue
            if not other_below or ROOMS[head].index(other_below[0]) > ROOMS[head].index(below[0]):
                found.append(f"{module} imports {other}")
    return found


def io_uses(module: str, text: str) -> list[str]:
    """Returns the imports and calls by which a module does I/O."""
    found = [
        f"{module} imports {name}"
        for name, _ in imports(module, text)
        if name.split(".")[0] in IO_MODULES or name == f"{PACKAGE}.child_process"
    ]
    for node in uses(text):
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name in IO_CALLS:
                found.append(f"{module} calls {name}")
    return found


def may_import(module: str, name: str) -> bool:
    """Returns True if a module of the runtime may import `name`."""
    libraries = RUNNERS_MAY_IMPORT if module.startswith(f"{RUNTIME}.runners.") else RUNTIME_MAY_IMPORT
    top = name.split(".")[0]
    return top in sys.stdlib_module_names or top in libraries or f"{name}.".startswith(f"{PACKAGE}.{RUNTIME}.")


def prints(texts: Sources) -> list[str]:
    return [
        f"{module}:{node.lineno}"
        for module, text in texts.items()
        if part(module) != "cli"
        for node in uses(text)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert parts <= {name for line in ORDER for name in line} | {RUNTIME}


def test_imports_run_one_way() -> None:
    assert back_imports(sources()) == []


@pytest.mark.parametrize("part", sorted(ROOMS))
def test_every_room_has_its_place_in_the_order(part: str) -> None:
    rooms = {path.stem for path in (ROOT / part).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} == set(ROOMS[part])


def test_imports_run_one_way_between_rooms() -> None:
    assert back_imports_of_rooms(sources()) == []


def test_there_are_no_import_cycles() -> None:
    graph = {
        module: {other for other in own_imports(module, text, sources()) if (module, other) not in LATE}
        for module, text in sources().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_runtime_imports_no_other_part() -> None:
    foreign = [
        f"{module} imports {name}"
        for module, text in sources().items()
        if part(module) == RUNTIME
        for name, _ in imports(module, text)
        if not may_import(module, name)
    ]
    assert foreign == []


@pytest.mark.parametrize(("module", "other"), sorted(LATE))
def test_a_late_import_is_in_a_function(module: str, other: str) -> None:
    top = [node for node in ast.parse(sources()[module]).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert other not in own_imports(module, "\n".join(map(ast.unparse, top)), sources())
    assert other in own_imports(module, sources()[module], sources())


def test_the_package_itself_imports_nothing_until_a_name_is_used() -> None:
    module = ast.parse((ROOT / "__init__.py").read_text())
    assert not [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom)]
    (types,) = [node for node in module.body if isinstance(node, ast.If)]
    assert ast.unparse(types.test) == "TYPE_CHECKING"
    assert "TYPE_CHECKING = False" in ast.unparse(module)


def test_pure_parts_do_io_only_in_their_shells() -> None:
    found = [
        use
        for module, text in sources().items()
        if part(module) in PURE_PARTS and module not in SHELLS
        for use in io_uses(module, text)
    ]
    assert found == []


@pytest.mark.parametrize(("folder", "may_include"), sorted(NATIVE.items()))
def test_the_core_of_the_backend_does_not_depend_on_triton(folder: str, may_include: frozenset[str]) -> None:
    files = [path for path in sorted((NATIVE_ROOT / folder).iterdir()) if path.suffix in (".h", ".cc")]
    assert len(files) > 1
    assert [
        f"{path.name} includes {name}"
        for path in files
        for name in re.findall(r'^ *# *include +"([^"]+)"', path.read_text(), re.MULTILINE)
        if name.split("/")[0] not in may_include
    ] == []


@pytest.mark.parametrize("module", sorted(SHELLS))
def test_every_shell_does_io(module: str) -> None:
    assert io_uses(module, sources()[module]) != []


def test_no_module_that_the_core_of_the_controller_imports_does_io() -> None:
    texts = sources()
    modules = reached("controller.core.step", texts)
    assert len(modules) > 5
    assert [use for module in sorted(modules) for use in io_uses(module, texts[module])] == []


def test_the_controller_imports_neither_the_search_for_plans_nor_the_compiler() -> None:
    """Its planning process imports them, so that a controller starts and takes over sooner."""
    modules = reached("api.daemon", sources())
    assert "controller.planning.process" in modules
    left_out = (
        "planner.search.",
        "planner.formulation.",
        "planner.bounds.",
        "compiler.compile",
        "compiler.gateway_models",
    )
    assert sorted(module for module in modules if module.startswith(left_out)) == []


def test_an_agent_is_started_in_the_background_without_importing_what_it_runs() -> None:
    modules = reached("agent.background", sources())
    assert "controller.persistence.lock" in modules
    assert sorted(module for module in modules if module.startswith(("agent.", "controller.fleet."))) == [
        "agent.background"
    ]


def test_only_the_command_line_prints() -> None:
    assert prints(sources()) == []


def test_the_modules_named_in_the_architecture_page_exist() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", page))
    assert len(named) > 10
    assert sorted(name for name in named if not any((base / name).exists() for base in (ROOT, ROOT.parent))) == []


def test_code_of_workers_is_valid_in_the_oldest_supported_python() -> None:
    for module in reached("runtime.variant", sources()) | reached("runtime.step_model", sources()):
        ast.parse(sources()[module], feature_version=(3, 10))


@pytest.mark.parametrize("template", ["emulated", "pipeline", "python", "step", "torch", "transformers"])
def test_a_template_imports_only_the_runtime(template: str) -> None:
    code = (ROOT.parent / "model_repository_templates" / template / "model.py").read_text()
    names = [name for name, _ in imports("template", code)]
    assert names
    assert [name for name in names if not may_import(RUNTIME, name)] == []
