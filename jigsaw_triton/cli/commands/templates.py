"""`jigsaw-triton templates`: lists the kinds of models that can be served."""

from collections.abc import Set
from typing import Any

from jigsaw_triton.api.files import GATEWAY_TEMPLATES
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.compiler import config as cfg
from jigsaw_triton.compiler.templates import CONFIG_FILE, NATIVE_CONFIG_FILE, Template, load_templates
from jigsaw_triton.models.kinds import kind_of
from jigsaw_triton.resources import templates_dir
from jigsaw_triton.runtime.spec import COMPILED_BACKEND
from jigsaw_triton.servers.installation import installed_backends
from jigsaw_triton.servers.runner_packages import RUNNER_PACKAGES, install_command, installed_version


@options.command("templates", examples=("templates", "templates -o json"))
def command(out: Output) -> None:
    """List the templates: the kinds of models that can be served.

    A variant in graph.yaml names its template. The list shows the file that the variant needs, and whether this
    machine's tritonserver or Python can serve it.
    """
    backends = installed_backends()
    templates = [t for name, t in load_templates(templates_dir()).items() if name not in GATEWAY_TEMPLATES]
    found = [_described(template, backends) for template in templates]
    rows = ((t["name"], t["serves"], t["artifact"] or "none", t["served_by"] or f"nothing; {t['hint']}") for t in found)
    out.result({"templates": found}, Table.of(("template", "serves", "artifact", "served here by"), rows))


def _described(template: Template, backends: Set[str]) -> dict[str, Any]:
    kind = kind_of(template.name)
    backend = cfg.parse(template.config_text, where=f"{template.name}/{CONFIG_FILE}").backend
    native = None
    if template.native_config_text is not None:
        native = cfg.parse(template.native_config_text, where=f"{template.name}/{NATIVE_CONFIG_FILE}").backend
    package = template.name if template.name in RUNNER_PACKAGES else None
    version = installed_version(package) if package is not None else None
    served_by, hint = None, None
    if native in backends:
        served_by = f"backend {native}"
    elif not backend:
        served_by = f"the backend that {kind.artifact} names"
    elif backend not in {*backends, COMPILED_BACKEND}:
        hint = f"use a tritonserver with the backend {backend}"
    elif package is not None and version is None:
        hint = install_command(package)
    else:
        served_by = f"backend {backend}" if package is None else f"Python package {package} {version}"
    return {
        "name": template.name,
        "serves": kind.serves,
        "artifact": kind.artifact or None,
        "backends": [name for name in (native, backend) if name],
        "package": package,
        "served_by": served_by,
        "hint": hint,
    }
