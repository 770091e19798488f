"""Part of a report about profiles: how far they can be trusted, and the best configurations."""

from collections.abc import Iterable, Iterator
from xml.etree.ElementTree import Element

from jigsaw_triton.profiles.report.figures import ReportFigures
from jigsaw_triton.profiles.report.sentences import trust_words
from jigsaw_triton.profiles.report.tables import choice_table, findings_table
from jigsaw_triton.report.frame import section
from jigsaw_triton.report.markup import tag


def profile_sections(profiles: Iterable[ReportFigures]) -> Iterator[Element]:
    """Yields a section for the profiles of each graph."""
    for one in profiles:
        title = f"Profiles of {one.graph.name}" if one.graph is not None else "Profiles"
        words = [tag("p", text) for text in trust_words(one)]
        tables = [findings_table(one.findings)] if one.findings else []
        for task in one.tasks:
            tables += [
                tag("h3", f"{task.task} on {task.gpu}"),
                choice_table(task, slo=one.slo is not None, linked=False),
            ]
        yield section(title, *words, *tables)
