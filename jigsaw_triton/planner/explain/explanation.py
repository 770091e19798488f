"""The explanation of a plan as a value: budgets, the effect of each requirement, and the next best choices."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jigsaw_triton.planner.domain.plan import Segment
from jigsaw_triton.planner.explain.requirement import Requirement

MOST_PATHS = 16
"""Number of paths up to which all are reported; of a graph with more, the longest path through each task is."""


@dataclass(frozen=True, slots=True)
class TaskBudget:
    """Part of its graph's SLO that a task uses.

    Attributes:
        graph: Name of the graph.
        task: Name of the task.
        latency_ms: Planned latency.
        budget_ms: Latency budget.
        accuracy: Relative accuracy of its least accurate variant in use; with an SLO on the mean, the mean by shares.
    """

    graph: str
    task: str
    latency_ms: float
    budget_ms: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PathBudget:
    """Part of the SLO that the tasks along a path use together.

    Attributes:
        graph: Name of the graph.
        tasks: Names of the tasks, from the first to the last.
        latency_ms: Planned latency.
        budget_ms: Sum of the tasks' latency budgets.
        slo_ms: Latency of the graph's SLO, less the time reserved for Python steps.
        slack_ms: Slack of the planned latency.
        accuracy: Planned relative accuracy.
        slo_accuracy: Accuracy of the graph's SLO.
        slack_accuracy: Slack of the planned accuracy.
    """

    graph: str
    tasks: tuple[str, ...]
    latency_ms: float
    budget_ms: float
    slo_ms: float
    slack_ms: float
    accuracy: float
    slo_accuracy: float
    slack_accuracy: float


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect of a change of the problem, compared with the explained plan.

    Attributes:
        outcome: `plan`: the changed problem has a plan; `none`: it has none; `unknown`: time ran out.
        slices: Additional compute slices.
        cost: Additional cost, in the unit of the plan's cost; None if each compute slice counts alike.
        gpus: Additional GPUs.
        accuracy: Difference of the least accuracy along a path, by graph.
        mean_accuracy: Difference of the product over tasks of the accuracy by shares (geometric mean), by graph. It
            decides between plans of equal slices and GPUs.
        proven: True if both plans are proven optimal; otherwise these are the best that were found.
    """

    outcome: Literal["plan", "none", "unknown"]
    slices: int = 0
    cost: float | None = None
    gpus: int = 0
    accuracy: Mapping[str, float] = field(default_factory=dict)
    mean_accuracy: Mapping[str, float] = field(default_factory=dict)
    proven: bool = True

    @property
    def saves(self) -> bool:
        """True if the changed problem costs less (takes fewer slices, if all count alike), or as much on fewer GPUs."""
        return self.outcome == "plan" and (self.slices if self.cost is None else self.cost, self.gpus) < (0, 0)


@dataclass(frozen=True, slots=True)
class Step:
    """A requirement with another value.

    Attributes:
        change: Change of the value as text, such as `+10 ms`.
        value: The other value.
        eases: True if it relaxes the requirement.
        effect: Effect on the plan.
    """

    change: str
    value: float
    eases: bool
    effect: Effect


@dataclass(frozen=True, slots=True)
class Limit:
    """A requirement and what it costs.

    Attributes:
        requirement: The requirement.
        value: Value of the requirement in the problem.
        binds: True if a step that relaxes it saves slices or GPUs; None if the time limit left that open.
        steps: Other values, relaxing ones first.
    """

    requirement: Requirement
    value: float
    binds: bool | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A variant or kind of slice in use for a task, and the effect of doing without it.

    Attributes:
        graph: Name of the graph.
        task: Name of the task.
        what: Kind of choice.
        chosen: Name of the variant or slice.
        effect: Effect of doing without it.
        instead: Segments of the task without it; empty if there is no plan, or time ran out.
    """

    graph: str
    task: str
    what: Literal["variant", "slice"]
    chosen: str
    effect: Effect
    instead: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of a plan.

    Attributes:
        tasks: Budgets of tasks by graph, in topological order.
        paths: Budgets of paths by graph; if a graph has more than `MOST_PATHS`, of the longest through each task.
        limits: Requirements in the order of `requirements`.
        choices: Choices by graph and task.
        seconds: Seconds that the explanation took.
        unknown: Number of effects that the time limit left open.
    """

    tasks: tuple[TaskBudget, ...]
    paths: tuple[PathBudget, ...]
    limits: tuple[Limit, ...]
    choices: tuple[Choice, ...]
    seconds: float
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Returns the explanation as an entry of plan.json."""
        data = asdict(self)
        for limit, entry in zip(self.limits, data["limits"], strict=True):
            entry["requirement"] = str(limit.requirement)
        return data
