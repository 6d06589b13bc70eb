"""A state from an image: what follows from the rest is built anew, in the order in which the parts need each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from mesh.core.graph import Flow
from mesh.core.image import IMAGE_VERSION, RUN_FIELDS, STEP_FIELDS, RunImage, StateImage, run_values, step_values
from mesh.core.limits import keys_of
from mesh.core.memory import schedule_timeout_ms
from mesh.core.run import LIVE, Run
from mesh.core.slots import Pool, Worker, join
from mesh.core.state import State
from mesh.core.step import DELAYED, HELD, MOVES, OUT, PENDING, READY, Attempt, Step
from mesh.core.timers import may_lie
from mesh_sdk.protocol.ids import pool_id
from mesh_sdk.protocol.records import NULL

_STATES = {name: name for name in MOVES}  # the same objects, so that they can be compared by identity


def load(data: bytes, finished_max: int) -> State:
    """The state that an image was made of.

    Raises:
        msgspec.ValidationError: when the bytes are no image of this version.
    """
    value = msgspec.json.decode(data, type=StateImage)
    if value.version > IMAGE_VERSION:
        raise msgspec.ValidationError(f"snapshot of version {value.version}, this reads version {IMAGE_VERSION}")
    return _Loader(value, finished_max).state


class _Loader:
    """Builds a state from an image, in the order in which the parts need each other."""

    def __init__(self, value: StateImage, finished_max: int) -> None:
        self.value = value
        self._admitted: set[str] = set()
        self.state = state = State(finished_max)
        state.now, state.term, state.holder = value.now, value.term, value.holder
        state.number, state.mark, state.event = value.number, value.mark, value.event
        state.lanes_until = value.lanes_until
        state.unclaimed = dict.fromkeys(value.unclaimed)
        self._load_definitions()
        self._load_workers()
        self._load_runs()
        self._load_attempts()
        self._load_limits()
        self._load_queues()
        self._load_group_limits()

    def _load_definitions(self) -> None:
        state = self.state
        for definition in self.value.definitions:
            state.versions[(definition.name, definition.digest)] = Flow(definition)
        for key in self.value.current:
            state.flows[key[0]] = state.versions[key]
        state.matcher.rebuild(state.flows.values())

    def _load_workers(self) -> None:
        state = self.state
        for actions in self.value.pools:
            state.pools[pool_id(actions)] = Pool(frozenset(actions))
        for w in self.value.workers:
            actions_of = frozenset(action for key in w.workflows for action in state.versions[key].actions)
            pool = state.pools[pool_id(actions_of)]
            worker = Worker(w.id, w.incarnation, w.name, w.slots, w.labels, w.workflows, w.client, w.host, w.pid, pool)
            worker.draining, worker.steered = w.draining, w.steered
            state.workers[worker.id] = worker
            pool.workers[worker.id] = worker
        state.routes.rebuild(state.pools.values())

    def _load_runs(self) -> None:
        state = self.state
        values = self.value.runs
        values.reverse()
        while values:  # what is loaded goes at once: the image and the state together would take twice the memory
            run = self._run(values.pop())
            state.runs[run.id] = run
            state.count_bound(run, 1)
        for value in self.value.finished:
            run = self._run(value)
            state.finished.window[run.id] = run
            state.finished.order.append(run.id)
        for value in self.value.kept:
            state.finished.kept[value.id] = self._run(value)
        state.finished.forgotten = dict.fromkeys(self.value.forgotten)
        state.finished.forgotten_before = dict.fromkeys(self.value.forgotten_before)
        state.finished.horizon = self.value.horizon
        state.repeats = self.value.repeats
        state.awaited = {run: (reason, at) for run, reason, at in self.value.awaited}
        for run in (*state.finished, *state.runs.values()):
            if run.key:
                state.keys[(run.flow.name, run.key)] = run.id

    def _run(self, value: RunImage) -> Run:
        flow = self.state.versions.get((value.workflow, value.digest)) or Flow.nothing(value.workflow)
        run = Run(value.id, flow, value.input.copy(), value.priority, value.number, value.started_at)
        run.left = value.left
        if value.status != LIVE:
            run.status = value.status
        _restore(run, RUN_FIELDS, run_values(value))
        if value.admitted:
            self._admitted.add(run.id)
        if value.moved and not run.moves:
            run.moves = 1  # an older image only says whether
        for step, image in zip(run.steps, value.steps, strict=bool(value.steps)):
            if image.state != PENDING:
                step.state = _STATES[image.state]
            step.needs = image.needs
            _restore(step, STEP_FIELDS, step_values(image))
            if image.output != NULL:
                step.output = image.output.copy()
        return run

    def _load_attempts(self) -> None:
        state = self.state
        orphans = {value.id: self._run(value) for value in self.value.orphans}
        for value in self.value.attempts:
            run = state.find(value.run) or orphans.get(value.run)
            if run is None or value.step >= run.flow.size:
                continue  # an older image has no orphans, or not their definition
            step = run.steps[value.step]
            worker = state.workers.get(value.worker) if value.worker else None
            attempt = Attempt(step, value.number, value.token, state.pools.get(value.pool), worker)
            attempt.held, attempt.lent, attempt.until, attempt.recalled = value.held, value.lent, value.until, value.recalled
            state.attempts[value.token] = attempt
            if value.counts:
                step.current = attempt
            _load_place(attempt)
        for worker in state.workers.values():
            if worker.takes_work:
                join(worker)

    def _load_limits(self) -> None:
        """Places are taken before anybody waits for one."""
        state = self.state
        state.limits.rates.load(self.value.rates, self.value.owed)
        for attempt in state.attempts.values():
            attempt.step.run.out += attempt.step.run.flow.keyed
        over = {attempt.step.run.id: attempt.step.run for attempt in state.attempts.values() if attempt.step.run.status is not LIVE}
        runs = [run for run in (*over.values(), *state.runs.values()) if run.keyed is not None]
        for run in sorted(runs, key=lambda run: (run.id not in self._admitted, run.number)):
            if run.status is LIVE or run.id in self._admitted:
                state.limits.load(run, run.id in self._admitted)
        for attempt in state.attempts.values():
            if attempt.step.run.keyed is not None:
                state.limits.load_attempt(attempt)

    def _load_group_limits(self) -> None:
        """Where the newest start that came with a limit has gone, those who are left don't know its limit."""
        groups = self.state.limits.groups
        for name, key, order, place in self.value.limited:
            if groups.get((name, key)) is not None:
                groups.group((name, key), self.value.limits[place], order)

    def _load_queues(self) -> None:
        state = self.state
        waiting = [step for run in state.runs.values() for step in run.steps if step.state is READY]
        for step in sorted(waiting, key=lambda step: step.mark):
            state.restore(step)
        lying = [step for run in state.runs.values() for step in run.steps if step.state is OUT and may_lie(step)]
        self._load_ready_timers(waiting + lying)
        for pool, run, index in self.value.full:
            state.pools[pool].full.append(state.runs[run].steps[index])
        for run_live in state.runs.values():
            self._load_timers(run_live)
        wanting = [run for run in state.runs.values() if run.flow.definition.admission_timeout_ms and run.ticket is not None]
        for run_wanting in sorted(wanting, key=lambda run: run.wanted_at):
            state.timers.admission(run_wanting)

    def _load_timers(self, run: Run) -> None:
        timers = self.state.timers
        if run.start_at:
            timers.delay(run)
        for step in run.steps:
            if step.state is DELAYED:
                timers.retry(step)
            elif step.state in (HELD, OUT) and step.current is not None and step.current.until:
                timers.extended(step.current)

    def _load_ready_timers(self, waiting: list[Step]) -> None:
        """Timers of one length stand in the order of their times: so they must come in that order."""
        for step in sorted(waiting, key=lambda step: step.ready_at):
            wait = schedule_timeout_ms(step)
            if wait:
                self.state.timers.ready(step, wait)
        limited = []
        for step in sorted(waiting, key=lambda step: step.sticky_at):
            if step.sticky_at and step.state is READY and keys_of(step) is not None:
                limited.append(step)
            elif step.sticky_at:
                self.state.timers.sticky(step, step.run.flow.definition.sticky_timeout_ms)
        for step in limited:  # nobody knows when its limits let it go
            step.let_go_at = self.state.now
            self.state.timers.sticky_anew(step, self.state.now, step.run.flow.definition.sticky_timeout_ms)


def _restore(target: Run | Step, names: tuple[str, ...], values: Iterable[Any]) -> None:
    """Set what is not as usual. Most of a run is, and whatever is set takes memory: more than twice as much in all."""
    for name, value in zip(names, values, strict=True):
        if value:
            setattr(target, name, value)


def _load_place(attempt: Attempt) -> None:
    worker = attempt.worker
    if worker is None:
        if attempt.pool is not None:
            attempt.pool.out[attempt.token] = attempt
    elif attempt.held:
        worker.held[attempt.token] = attempt
        worker.used += 0 if attempt.lent else attempt.slots
        worker.keys_out += not attempt.slots
    else:
        worker.reserved[attempt.token] = attempt
        worker.promised += attempt.slots
        worker.keys_out += not attempt.slots
