"""Reading the profiles of graphs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.api.files import ONLY_GRAPH, GraphSource, GraphText, Mistakes, PathLike, shown_path
from jigsaw_triton.errors import InputError, SpecError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.profiles.processes import of_other_kind, refusal
from jigsaw_triton.profiles.read import parse_with_lines, read_with_lines
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable
from jigsaw_triton.spec.words import nearest

PROFILES_FILE = "profiles.csv"


@dataclass(frozen=True, slots=True)
class ReadTable:
    """Profiles, and where they were read.

    Attributes:
        table: The profiles.
        file: Name of the file, or another place, for messages.
        lines: Lines of the rows; none if they are not from a file.
    """

    table: ProfileTable
    file: str
    lines: Mapping[ProfileKey, int]


def load_profiles(path: PathLike) -> ProfileTable:
    """Reads measured latencies and throughputs.

    Args:
        path: Path of a profiles.csv or of its folder.

    Raises:
        InputError: There is no such file.
        SpecError: The file has mistakes; the error has a diagnostic for each.

    Examples:
        >>> import jigsaw_triton as jt
        >>> table = jt.load_profiles("app")
        >>> sorted({row.key.gpu for row in table.rows()})
        ['cpu']
    """
    path = Path(path)
    return _read_profiles(path, path if path.is_dir() else path.parent).table


def read_profile_tables(
    graphs: Mapping[str, TaskGraph],
    mistakes: Mistakes,
    *,
    given: Mapping[str, ProfileTable | PathLike] | None = None,
    sources: Iterable[GraphSource] = (),
) -> dict[str, ProfileTable]:
    """Reads the profiles of graphs.

    Args:
        graphs: Graphs by name.
        mistakes: Collection of mistakes; tables with mistakes are left out of the result.
        given: Tables, or paths of files, by graph; the key `ONLY_GRAPH` is the only graph. By default profiles are
            read from profiles.csv beside the graph.
        sources: Sources of the graphs, some of which may have their profiles with them.

    Returns:
        Tables by graph.
    """
    found = read_profiles_and_lines(graphs, mistakes, given=given, sources=sources)
    return {name: one.table for name, one in found.items()}


def read_profiles_and_lines(
    graphs: Mapping[str, TaskGraph],
    mistakes: Mistakes,
    *,
    given: Mapping[str, ProfileTable | PathLike] | None = None,
    sources: Iterable[GraphSource] = (),
) -> dict[str, ReadTable]:
    """Reads the profiles of graphs, and returns the lines of their rows too. See `read_profile_tables`."""
    given, tables = dict(given or {}), dict[str, ReadTable]()
    if ONLY_GRAPH in given and len(graphs) == 1:
        given = dict.fromkeys(graphs, given.pop(ONLY_GRAPH)) | given
    for name in given.keys() - graphs.keys():
        hint = nearest(name, graphs, "graphs") if name else "give a mapping from the name of each graph to its profiles"
        mistakes.add("profiles", f"there is no graph '{name}'" if name else "it is not clear for which graph", hint)
    texts = {source.name: source.profiles for source in sources if isinstance(source, GraphText)}
    for name, graph in graphs.items():
        with mistakes:
            source = given.get(name, graph.folder / PROFILES_FILE)
            if isinstance(source, ProfileTable):
                tables[name] = ReadTable(source, f"profiles of {name}", {})
            elif (text := texts.get(name)) is not None:
                tables[name] = ReadTable(parse_with_lines(text, f"profiles of {name}")[0], f"profiles of {name}", {})
            else:
                tables[name] = _read_profiles(Path(source), graph.folder)
    return tables


def _read_profiles(path: Path, graph: Path) -> ReadTable:
    file = path / PROFILES_FILE if path.is_dir() else path
    if not file.exists():
        raise InputError(
            "there is no such file",
            where=shown_path(file),
            hint=f"it has the speed of each variant; `jigsaw-triton profile {shown_path(graph)}` measures it",
        )
    table, lines = read_with_lines(shown_path(file))
    return ReadTable(table, shown_path(file), lines)


def check_processes(
    graphs: Mapping[str, TaskGraph], tables: Mapping[str, ReadTable], cluster: Cluster, mistakes: Mistakes
) -> None:
    """Checks that profiles are of the kind of instances that the cluster serves: streams, or processes under MPS."""
    boards = {gpu.board.name for gpu in cluster.gpus}
    for name, found in tables.items():
        with mistakes:
            if rows := of_other_kind(graphs[name], found.table, boards, cluster.processes):
                raise SpecError([refusal(rows, cluster.processes, found.file, found.lines)])
