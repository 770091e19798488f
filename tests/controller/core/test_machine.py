"""The core under random events and faults, with a check of its invariants after each of them."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.generation import Canary, Generation
from jigsaw_triton.controller.core.recovery import recovered
from jigsaw_triton.controller.core.request_checks import refusal
from jigsaw_triton.controller.core.request_counts import RequestCounts
from jigsaw_triton.controller.core.standby import routes_to_set
from jigsaw_triton.controller.core.state import Phase, State
from jigsaw_triton.controller.core.step import step
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import GpuId
from tests.controller.core.transitions import bundles
from tests.controller.worlds import BOARD, ONE, bundle, checkpointed, planned, wanted, worker

MOST_CHANGES = 6
BESIDE = bundle(2, [worker("0/1g@0", ("t0", "b"), generation=2), worker("0/1g@1", ("t1", "a"))])


class Machine(RuleBasedStateMachine):
    """A shell that ends actions in any order, with success or failure, and sends any event at any time.

    `servers` has the models that each worker's process has loaded, and `failing_writes` the number of next routes that
    cannot be written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.state = State()
        self.waiting: dict[int, a.Action] = {}
        self.made: dict[int, Bundle] = {}
        self.served: list[Generation] = []
        self.stuck: set[str] = set()
        self.servers: dict[str, set[str]] = {}
        self.failing_writes = 0
        self.clock_s = 0.0

    @initialize(canary=st.booleans())
    def deploy_first(self, canary: bool = False) -> None:
        """Begins a deployment, or the canary of its first update: random bundles seldom have room for two."""
        self.send(e.Tick(100.0, {}))
        self.send(e.DeployRequested(wanted()))
        if canary:
            self.finish(ONE)
            self.send(e.DeployRequested(wanted(20.0), Canary(0.1, 30.0)))
            self.finish(BESIDE)
            assert self.watches()

    def finish(self, made: Bundle) -> None:
        """Ends actions until none is left."""
        while self.waiting:
            self.end(min(self.waiting), made=made)

    def send(self, event: e.Event) -> None:
        before = self.state
        self.state, outputs = step(self.state, event)
        for output in outputs:
            if isinstance(output, a.Issued):
                assert output.id not in self.waiting
                self.waiting[output.id] = output.action
            elif isinstance(output, a.Report):
                assert output.text
        if self.state.running is not None and self.state.running is not before.running:
            self.served.append(self.state.running)

    def end(self, number: int, *, error: str = "", made: Bundle | None = None) -> None:
        action = self.waiting[number]
        del self.waiting[number]
        if self.failing_writes and isinstance(action, a.SetRoutes | a.LoadGateway):
            self.failing_writes -= 1
            error = error or "the disk is full"
        if not error:
            self._carry_out(action)
        if error:
            if isinstance(action, a.UnloadModels):
                self.stuck.update(action.models)
            self.send(e.Failed(number, error))
        elif isinstance(action, a.Solve):
            assert made is not None
            self.made[action.generation] = made
            self.send(e.Solved(number, planned(action.demand_rps["app"], made), made))
        else:
            self.send(e.Done(number))

    def _carry_out(self, action: a.Action) -> None:
        match action:
            case a.BringUp(worker) | a.RestartWorker(worker):
                self.servers[worker.name] = {model.name for model in worker.models}
            case a.LoadModels(worker=name, models=models):
                self.servers[name] |= {model.name for model in models}
            case a.UnloadModels(worker=name, models=names):
                self.servers.get(name, set()).difference_update(names)
            case a.Retire(worker):
                self.servers.pop(worker.name, None)

    # --- events -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fails=st.integers(0, 9))
    def end_an_action(self, data: st.DataObject, fails: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        action = self.waiting[number]
        if isinstance(action, a.Solve):
            made = data.draw(bundles(action.generation)) if action.restored is None else action.restored.bundle
            self.end(number, error="no plan" if fails == 0 else "", made=replace(made, generation=action.generation))
        else:
            self.end(number, error="it failed" if fails == 0 else "")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def end_all_actions(self, data: st.DataObject) -> None:
        for number in sorted(self.waiting):
            action = self.waiting[number]
            made = data.draw(bundles(action.generation)) if isinstance(action, a.Solve) else None
            self.end(number, made=made)

    @rule(writes=st.integers(1, 4))
    def fill_the_disk(self, writes: int) -> None:
        self.failing_writes = writes

    @precondition(lambda self: refusal(self.state) is None and self.state.next_generation <= MOST_CHANGES)
    @rule(rps=st.sampled_from([5.0, 20.0, 50.0]), canary=st.sampled_from([None, Canary(0.1, 5.0), Canary(0.5, 60.0)]))
    def deploy(self, rps: float, canary: Canary | None) -> None:
        self.send(e.DeployRequested(wanted(rps), canary))

    @precondition(lambda self: self.watches())
    @rule(failed=st.sampled_from([0.0, 50.0]), seconds=st.sampled_from([1, 6]))
    def serve_a_canary(self, failed: float, seconds: int) -> None:
        watch = self.state.watch
        assert watch is not None
        requests = {("app", watch.running): RequestCounts(100.0), ("app", watch.new): RequestCounts(50.0, failed)}
        for _ in range(seconds):
            self.send(e.Tick(self.state.now_s + 1.0, {"app": 8.0}, requests=requests))

    @precondition(lambda self: self.state.watch is not None)
    @rule()
    def end_the_canary(self) -> None:
        self.send(e.CanaryEndRequested())

    def watches(self) -> bool:
        """Returns True while both generations of a canary serve."""
        watch = self.state.watch
        began = self.state.phase is Phase.CHANGING and watch is not None and watch.began_s is not None
        return began and watch is not None and watch.verdict is None

    @precondition(
        lambda self: self.served and refusal(self.state) is None and self.state.next_generation <= MOST_CHANGES
    )
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        self.send(e.RollbackRequested(data.draw(st.sampled_from(self.served))))

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.send(e.PauseRequested(paused))

    @rule(rps=st.sampled_from([0.0, 8.0, 500.0]), seconds=st.sampled_from([1, 10, 70]))
    def let_time_pass(self, rps: float, seconds: int) -> None:
        rps = rps if self.state.next_generation <= MOST_CHANGES else 8.0
        for _ in range(seconds):
            self.send(e.Tick(self.state.now_s + 1.0, {"app": rps}))

    @rule(rps=st.sampled_from([0.0, 8.0, 500.0]), times=st.integers(1, 40))
    def count_arrivals(self, rps: float, times: int) -> None:
        for _ in range(times):
            self.clock_s += 0.25
            self.send(e.Arrived(self.clock_s, 0.25, {"app": rps / 4}))
        state = self.state
        switches = any(isinstance(action, a.SetRoutes) for action in self.waiting.values())
        if state.phase is Phase.READY and not switches and state.now_s >= state.switch_at_s:
            assert state.running is not None
            assert routes_to_set(state.actual, state.running, state.standby) == {}

    @precondition(lambda self: self.state.actual.workers)
    @rule(data=st.data())
    def kill_a_worker(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.state.actual.workers)))
        self.servers[name] = set()
        self.send(e.WorkerExited(name, "signal 9"))

    @precondition(lambda self: self.state.actual.gateway)
    @rule()
    def kill_the_gateway(self) -> None:
        self.send(e.GatewayExited("signal 9"))

    @precondition(lambda self: self.state.next_generation <= MOST_CHANGES)
    @rule(lost=st.sets(st.sampled_from([gpu.id for gpu in wanted().cluster.gpus])))
    def lose_gpus(self, lost: set[GpuId]) -> None:
        self.send(e.GpusLost(frozenset(lost)))

    @precondition(lambda self: self.state.phase is not Phase.IDLE)
    @rule()
    def kill_the_controller(self) -> None:
        """The next controller goes on from the last state, and the shell makes true what recovery assumes."""
        state = recovered(checkpointed(self.state))
        self.waiting.clear()
        if state is None:
            self.state = State(next_generation=self.state.next_generation)
            self.deploy_first()
        else:
            self.state = state
            workers = state.actual.workers.values()
            self.servers = {worker.name: {model.name for model in worker.models} for worker in workers}
            self.send(e.Tick(self.state.now_s + 1.0, {"app": 8.0}))

    # --- invariants ---------------------------------------------------------------------------------------------------

    @invariant()
    def no_slice_is_owned_twice(self) -> None:
        for index in range(2):
            places = {
                w.place
                for w in self.state.actual.workers.values()
                if w.place is not None and w.place.gpu.index == index
            }
            assert fits(CATALOG[BOARD], [place.placement for place in places]) is None

    @invariant()
    def no_request_is_routed_to_what_is_not_loaded(self) -> None:
        loaded = {(w.name, m.name) for w in self.state.actual.workers.values() for m in w.models}
        for name, route in self.state.actual.routes.items():
            for entry in route:
                assert (entry.worker, entry.model) in loaded, f"{name} leads to {entry.model} on {entry.worker}"

    @invariant()
    def every_front_finds_its_routes(self) -> None:
        forms = self._forms()
        for front in self.state.actual.fronts.values():
            form = forms[str(front.files["config.pbtxt"])]
            assert {task.name for task in form.tasks} <= self.state.actual.routes.keys()

    def _forms(self) -> Mapping[str, CompiledGraph]:
        graphs = [made.graphs["app"] for made in self.made.values()]
        return {str(form.front.files["config.pbtxt"]): form for graph in graphs for form in graph.forms}

    @invariant()
    def what_the_core_waits_for_is_under_way(self) -> None:
        assert self.state.inflight.keys() == self.waiting.keys()
        assert self.state.stage_ids <= self.waiting.keys()
        if self.state.phase in (Phase.SOLVING, Phase.CHANGING):
            assert self.waiting or self.watches()

    @invariant()
    def only_a_canary_weights_generations(self) -> None:
        if self.state.phase is Phase.READY and self.state.restore_at_s is None:
            assert not any(entry.weights for route in self.state.actual.routes.values() for entry in route)

    @invariant()
    def no_canary_outlives_its_deadline(self) -> None:
        watch = self.state.watch
        if self.watches() and watch is not None and watch.began_s is not None:
            assert self.state.now_s < watch.began_s + watch.canary.seconds

    @invariant()
    def when_it_is_ready_the_plan_runs(self) -> None:
        """Models that could not be unloaded, and workers that could not be stopped, may be left beside it."""
        if self.state.phase is Phase.READY and self.state.restore_at_s is None:
            assert self.state.running is not None
            assert self.state.actual.gateway
            for name, worker in self.state.running.bundle.workers.items():
                loaded = {model.name for model in self.state.actual.workers[name].models}
                assert {model.name for model in worker.models} <= loaded

    @invariant()
    def workers_have_the_models_that_the_core_knows(self) -> None:
        """A model that could not be unloaded may be left."""
        if not self.waiting:
            for name, worker in self.state.actual.workers.items():
                models = {model.name for model in worker.models}
                assert models - self.stuck == self.servers[name] - self.stuck, name

    def teardown(self) -> None:
        """From every state, `down` ends everything."""
        self.send(e.DownRequested())
        for _ in range(20):
            for number in sorted(self.waiting):
                self.end(number, error="cancelled" if not isinstance(self.waiting[number], a.Retire) else "")
        assert self.state.phase is Phase.STOPPED
        assert not self.state.actual.workers
        assert not self.state.actual.gateway


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
