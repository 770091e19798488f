"""Records that a deployment has written to its folders, readable whether its controller answers or not."""

from contextlib import closing
from typing import Any

from jigsaw_triton.console.plan_changes import READY, plan_changes
from jigsaw_triton.console.trace import read_traces
from jigsaw_triton.console.web.spans import TraceKey, listed, spans
from jigsaw_triton.controller.persistence.load_history import KEPT_S, read_history
from jigsaw_triton.controller.persistence.lock import is_locked
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.controller.persistence.records import STOPPED, JournalEvent
from jigsaw_triton.errors import InputError
from jigsaw_triton.runtime.trace import FOLDER, GATEWAY
from jigsaw_triton.servers.logfile import tail
from jigsaw_triton.spec.words import nearest

Json = dict[str, Any]


class Records:
    """Reads the records of a deployment. All methods block.

    Args:
        paths: Paths of the deployment.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def history(self, now_s: float, seconds: float) -> Json:
        """Returns the samples of the load as one list a figure, and the changes of the plan among them.

        Args:
            now_s: Present time, in seconds since 1970.
            seconds: Seconds of the history, an hour at most.
        """
        since_s = now_s - min(seconds, KEPT_S)
        samples = read_history(self._paths.load, since_s)
        return {"samples": _columns(samples), "changes": [c for c in self._changes() if c["t"] > since_s]}

    def _changes(self) -> list[Json]:
        if not self._paths.journal.exists():
            return []
        with closing(JournalReader(self._paths.journal)) as journal:
            revisions, events = journal.generations(), journal.events(kinds=(READY,))
        return [
            {
                "t": change.t,
                "generation": change.after.number,
                "from": change.before.number if change.before is not None else 0,
                "why": change.after.reason,
                "by": change.after.by,
                "seconds": change.seconds,
                "slices_before": change.before.slices if change.before is not None else 0,
                "slices_after": change.after.slices,
                "summary": change.summary,
            }
            for change in plan_changes(revisions, events)
        ]

    def events(self, *, after: int, before: int | None, limit: int, kind: str, text: str) -> tuple[JournalEvent, ...]:
        """Returns the last events that match, oldest first.

        Args:
            after: Number of the last event that is known.
            before: Number of the first event that is known; None for none.
            limit: Number of events to return.
            kind: Kind of the events; empty for all.
            text: Text that the events contain, in any case; empty for all.
        """
        if not self._paths.journal.exists():
            return ()
        with closing(JournalReader(self._paths.journal)) as journal:
            kinds = (kind,) if kind else ()
            return journal.events(after, limit, before=before, kinds=kinds, text=text)

    def kinds(self) -> tuple[str, ...]:
        """Returns the kinds of events that the journal has."""
        if not self._paths.journal.exists():
            return ()
        with closing(JournalReader(self._paths.journal)) as journal:
            return journal.event_kinds()

    def servers(self) -> list[str]:
        """Returns the names of the logs: of the workers, the gateway and the controller."""
        return sorted(path.stem for path in self._paths.logs.glob("*.log"))

    def log(self, server: str, lines: int) -> list[str]:
        """Returns the last lines of a log.

        Raises:
            InputError: There is no such log.
        """
        known = self.servers()
        if server not in known:
            hint = f"{nearest(server, known, 'logs')}; a worker of another machine has its log there"
            raise InputError(f"there is no log {server!r} on this machine", where="server", hint=hint)
        return tail(self._paths.log(server), lines)

    def traces(self, graph: str, limit: int) -> list[Json]:
        """Returns the latest traces, the latest first.

        Args:
            graph: Name of the graph; empty for all.
            limit: Number of traces to return.
        """
        # The name becomes part of a pattern of file names, so only names of graphs that have traces are allowed.
        names = [name for name in self._traced() if graph in ("", name)]
        traces = [trace for name in names for trace in read_traces(self._paths.run, name)]
        return [listed(trace) for trace in sorted(traces, key=lambda trace: -trace.began_s)[:limit]]

    def trace(self, key: str) -> Json:
        """Returns the spans of a trace.

        Raises:
            InputError: There is no such trace, or no longer.
        """
        asked = TraceKey.parsed(key)
        known = asked.graph in self._traced()
        for trace in read_traces(self._paths.run, asked.graph, asked.request) if known else ():
            if asked.names(trace):
                return spans(trace)
        raise InputError("there is no such trace", where=key, hint="the traces of old requests are overwritten")

    def _traced(self) -> list[str]:
        """Returns the names of the graphs with traces."""
        folder = self._paths.run / FOLDER / GATEWAY
        # `<graph>.<task>.jsonl`, or `.jsonl.1`. A graph's name may contain dots, so each beginning may be one.
        parts = [path.name.split(".jsonl")[0].split(".") for path in folder.glob("*.jsonl*")]
        return sorted({".".join(names[:end]) for names in parts for end in range(1, len(names))})

    def running(self) -> int:
        """Returns the number of the generation that serves, or served last; 0 if there is none."""
        if not self._paths.journal.exists():
            return 0
        with closing(JournalReader(self._paths.journal)) as journal:
            return journal.served_last()

    def plan(self, number: int) -> Json | None:
        """Returns the plan of a generation; None if the journal no longer has it."""
        with closing(JournalReader(self._paths.journal)) as journal:
            return journal.plan(number)

    def generation_state(self, number: int) -> tuple[str, bytes]:
        """Returns the version and the state of a generation; both empty if the journal does not have it."""
        with closing(JournalReader(self._paths.journal)) as journal:
            return journal.generation_state(number)

    def has_stopped(self) -> bool:
        """Returns True if the deployment has been taken down, or its folder is gone."""
        if not self._paths.journal.exists():
            return True
        if is_locked(self._paths.supervisor_lock) or is_locked(self._paths.lock):
            return False
        last = self.events(after=0, before=None, limit=1, kind="", text="")
        return bool(last) and last[-1].kind == STOPPED


def _columns(samples: list[Json]) -> Json:
    names = sorted({name for sample in samples for name in sample["graphs"]})
    figures = sorted({figure for sample in samples for graph in sample["graphs"].values() for figure in graph})
    joules = [sample.get("joules_per_request") for sample in samples]
    return {
        "t": [sample["t"] for sample in samples],
        "slices": [sample["slices"] for sample in samples],
        **({"joules_per_request": joules} if any(value is not None for value in joules) else {}),
        "graphs": {
            name: {f: [sample["graphs"].get(name, {}).get(f) for sample in samples] for f in figures} for name in names
        },
    }
