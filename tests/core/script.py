"""Runs a script: commands at the margin, and indented below each what the core records and sends.

```
workflow chain a b<a c<b retries=1 timeout_ms=1000     define it (options of steps and of the workflow alike)
join w1 chain slots=1                                   a worker registers
start r1 chain key=k                                    a client starts a run
event user.created 7                                    an event was stored as message 7
w1 accepts|finishes|fails|returns|lends|resumes|refreshes|spawns r1.a [words] [options]     r1.a@2: its second attempt
w1 drains|leaves|holds r1.a r1.b
lost w1 · steer w1 pause · cancel r1 why · time 1500 · lanes-lost · again · takeover
```
Records have no mark, what is sent begins with `->`. Runs and pools get short names as they come.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from msgspec import Raw

from mesh.core import records as facts
from mesh.core.inputs import SELF, EventArrived, HoldingAsked, LanesLost, Sender, TimePassed, WorkerVanished
from mesh_sdk.protocol import records as wire
from mesh_sdk.protocol.definitions import StepDefinition, WorkflowDefinition
from mesh_sdk.protocol.ids import derived_run_id, run_id_time_ms
from tests.core.world import T0, World

Options = dict[str, object]


def run_script(path: Path) -> str:
    """The script's text with the traces that its commands really give."""
    player = _Player()
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith(("    ", "\t")):
            continue
        lines.append(line)
        if line and not line.startswith("#"):
            lines += [f"    {told}" for told in player.play(line)]
    player.world.check_followers()
    player.world.check_once()
    return "\n".join(lines) + "\n"


def _split(words: list[str]) -> tuple[list[str], Options]:
    plain = [word for word in words if "=" not in word]
    options: Options = {}
    for word in words:
        if "=" in word:
            name, _, value = word.partition("=")
            options[name] = _value(value)
    return plain, options


def _value(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


class _Player:
    def __init__(self) -> None:
        self.world = World()
        self.workflows: dict[str, WorkflowDefinition] = {}
        self.runs: dict[str, str] = {}
        self.pools: dict[str, str] = {}
        self.assigns: dict[tuple[str, int, int], wire.Assign] = {}
        self.last: tuple[object, Sender] = (None, SELF)

    def play(self, line: str) -> list[str]:
        command, *words = shlex.split(line)
        plain, options = _split(words)
        if command == "workflow":
            self._define(plain, options)
            return []
        if command == "takeover":
            self.world.take_over("image")
            self.world.resend()
            return []
        if command == "time":
            self.world.now += int(plain[0])
            self.last = (TimePassed(), SELF)
        elif command == "again":
            pass
        elif hasattr(self, f"_do_{command.replace('-', '_')}"):
            self.last = getattr(self, f"_do_{command.replace('-', '_')}")(plain, options)
        else:
            self.last = self._worker(command, plain[0], plain[1:], options)
        return self._told(self.world.decide(*self.last))

    # ---- commands -------------------------------------------------------------------------------------------------------

    def _define(self, plain: list[str], options: Options) -> None:
        name, *specs = plain
        names = [spec.partition("<")[0] for spec in specs]
        of_step = {k: v for k, v in options.items() if k in StepDefinition.__struct_fields__ and k != "priority"}
        rest = {k: v for k, v in options.items() if k not in of_step}
        steps = []
        for spec in specs:
            step, _, parents = spec.partition("<")
            steps.append(StepDefinition(step, [names.index(parent) for parent in parents.split(",") if parent], **of_step))  # type: ignore[arg-type]
        self.workflows[name] = WorkflowDefinition(name, steps, **rest)  # type: ignore[arg-type]

    def _do_join(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        worker, *names = plain
        sender = Sender(worker, str(options.pop("incarnation", "i1")))
        workflows = [self.workflows[name] for name in names]
        return wire.Register("w", int(str(options.get("slots", 1))), workflows, {}, f"client-{worker}"), sender

    def _do_start(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        alias, workflow = plain
        client = str(options.pop("client", "client"))
        run = self.runs.setdefault(alias, f"{T0:012x}{len(self.runs):020x}")
        return wire.Start(run, workflow, Raw(b"{}"), **options), Sender(client, "", self.world.now)  # type: ignore[arg-type]

    def _do_event(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        return EventArrived(int(plain[1]), T0, plain[0], Raw(b'{"n":1}')), SELF

    def _do_cancel(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        run = self.runs.setdefault(plain[0], f"{T0:012x}{len(self.runs):020x}")
        return wire.Cancel(run, " ".join(plain[1:])), Sender("client", "", self.world.now)

    def _do_lost(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        return WorkerVanished(plain[0], str(options.get("incarnation", "i1")), "lost"), SELF

    def _do_steer(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        return wire.Steer(*plain), SELF

    def _do_lanes_lost(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        return LanesLost(), SELF

    def _do_holding_asked(self, plain: list[str], options: Options) -> tuple[object, Sender]:
        return HoldingAsked(int(plain[0])), SELF

    def _worker(self, worker: str, verb: str, words: list[str], options: Options) -> tuple[object, Sender]:
        sender = Sender(worker, str(options.pop("incarnation", "i1")))
        if verb == "drains":
            return wire.Draining(), sender
        if verb == "leaves":
            return wire.Left(), sender
        if verb == "holds":
            return wire.Holding([self._attempt(word) for word in words], int(str(options.get("question", 0)))), sender
        attempt = self._attempt(words[0])
        rest = words[1:]
        if verb == "spawns":
            alias, workflow, position = rest
            step = words[0].partition("@")[0].rpartition(".")[2]
            derived = derived_run_id(run_id_time_ms(attempt[0]), attempt[0], step, position)
            child = self.runs.setdefault(alias, derived)
            return wire.Spawn(*attempt, position, "digest", child, workflow, Raw(b"{}"), **options), sender  # type: ignore[arg-type]
        return self._report(verb, attempt, rest, options), sender

    def _report(self, verb: str, attempt: tuple[str, int, int, str], rest: list[str], options: Options) -> object:
        match verb:
            case "accepts":
                return wire.Accepted(*attempt)
            case "finishes":
                return wire.Finished(*attempt, Raw((rest[0] if rest else "1").encode()))
            case "fails":
                return wire.Failed(*attempt, wire.StepError("ValueError", rest[0] if rest else "no"), **options)  # type: ignore[arg-type]
            case "returns":
                return wire.Returned(*attempt, rest[0])
            case "lends":
                return wire.Lent(*attempt)
            case "resumes":
                return wire.Resumed(*attempt)
            case "refreshes":
                return wire.Refresh(*attempt, int(rest[0]))
        raise ValueError(f"no such command: {verb}")

    def _attempt(self, word: str) -> tuple[str, int, int, str]:
        word, _, number = word.partition("@")
        alias, _, name = word.rpartition(".")
        run = self.runs[alias]
        found = [a for (of, _, n), a in self.assigns.items() if of == run and a.name == name and (not number or n == int(number))]
        return found[-1].run, found[-1].step, found[-1].attempt, found[-1].token

    # ---- traces -----------------------------------------------------------------------------------------------------------

    def _told(self, records: list[facts.Fact]) -> list[str]:
        effects = self.world.effects
        lines = [self._fact(fact) for fact in records]
        for pool, orders in effects.shared.items():
            lines += [f"-> pool {self._pool(pool)}: {self._order(order)}" for order in orders]
        for (worker, _), orders in effects.private.items():
            lines += [f"-> {worker}: {self._order(order)}" for order in orders]
        for client, notices in effects.notices.items():
            lines += [f"-> {client}: {self._notice(notice)}" for notice in notices]
        lines += [f"-> dead letter: {rejected.reason}" for rejected in effects.rejected]
        return lines or ["nothing"]

    def _order(self, order: wire.Order) -> str:
        if isinstance(order, wire.Forget):
            return f"forget {self._run(order.run)} ({order.reason})"
        if isinstance(order, wire.Steered):
            return order.what
        name = f"{self._run(order.run)}.{order.step}" if isinstance(order, wire.Withdraw) else f"{self._run(order.run)}.{order.name}"
        if isinstance(order, wire.Withdraw):
            unless = " unless started" if order.unless_started else ""
            return f"withdraw {name}@{order.attempt} ({order.reason}){unless}"
        self.assigns[(order.run, order.step, order.attempt)] = order
        parents = " ".join(f"{parent}={bytes(output).decode()}" for parent, output in order.parents.items())
        return " ".join(filter(None, (f"assign {name}@{order.attempt}", order.token, parents)))

    def _notice(self, notice: wire.Notice) -> str:
        if isinstance(notice, wire.Registered):
            return f"registered {notice.worker} {notice.refused}".rstrip()
        if isinstance(notice, wire.Started):
            return f"{self._run(notice.requested)} is {self._run(notice.run)}"
        errors = "; ".join(f"{error.step or 'run'}: {error.type}: {error.message}" for error in notice.errors or ())
        return f"done {self._run(notice.run)} {notice.status} {errors or bytes(notice.output).decode()}"

    def _fact(self, fact: facts.Fact) -> str:
        words = [type(fact).__name__]
        for name in fact.__struct_fields__:
            value = getattr(fact, name)
            if value not in ("", None, 0, [], {}) and not (isinstance(value, Raw) and bytes(value) == b"null"):
                words.append(f"{name}={self._field(name, value)}")
        return " ".join(words)

    def _field(self, name: str, value: object) -> str:
        if name in ("run", "requested"):
            return self._run(str(value))
        if name == "pool":
            return self._pool(str(value))
        if name in ("again_at", "start_at", "until", "at", "before") and isinstance(value, int):
            return f"+{value - T0}" if value > 0 else "never"
        if isinstance(value, Raw):
            return bytes(value).decode()
        if isinstance(value, WorkflowDefinition):
            return value.name
        if isinstance(value, wire.StepError):
            return f"({value.type}: {value.message})"
        if name == "workflows":
            return ",".join(workflow for workflow, _ in value)  # type: ignore[attr-defined]
        if name == "parent":
            run, step, position, _ = value  # type: ignore[misc]
            return f"{self._run(run)}.{step}/{position}"
        return "…" if name == "digest" else str(value)

    def _run(self, run: str) -> str:
        for alias, known in self.runs.items():
            if known == run:
                return alias
        self.runs[f"e{len(self.runs)}"] = run
        return self._run(run)

    def _pool(self, pool: str) -> str:
        return self.pools.setdefault(pool, f"P{len(self.pools) + 1}")
