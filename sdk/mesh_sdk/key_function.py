"""The key function of a workflow: its output is the key by which runs of the workflow are limited.

It travels as a step of kind KEY, which a worker runs before the run is admitted, and which its user never sees as a step.

Rule: only text of 1 to 512 characters leaves it; the worker fails whatever else it returns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from reprlib import Repr
from typing import Any, TypedDict

from pydantic_core import to_json

from mesh_sdk.concurrency import read_max_runs, read_strategy
from mesh_sdk.errors import DefinitionError, InvalidOutput
from mesh_sdk.limits import ConcurrencyLimitStrategy, LimitStrategy
from mesh_sdk.options import StepSettings, refuse_unknown
from mesh_sdk.protocol.bounds import KEY_CHARACTERS_MAX
from mesh_sdk.protocol.definitions import FUNCTION, KEY, ConcurrencyDefinition, StepDefinition
from mesh_sdk.serialize import Dump, is_untyped
from mesh_sdk.signature import Namespace, StepSignature, read_signature
from mesh_sdk.step import StepSpec, make_spec

TIMEOUT_MS = 10_000
KEY_MARK = "__mesh_concurrency__"

_OPEN = (Any, object)
"""Types that say nothing; from Python 3.11 on the former is a class."""

_repr = Repr()
_repr.maxother = _repr.maxstring = 60


class KeyOptions(TypedDict, total=False):
    """What a key function can be told."""

    max_runs: int
    limit_strategy: LimitStrategy


@dataclass(frozen=True, slots=True)
class KeyLimit:
    """The options, read; what `@mesh.concurrency()` leaves on a method until its class is decorated."""

    max_runs: int
    strategy: str


@dataclass(frozen=True, slots=True)
class KeySpec:
    """A key function as defined, before it is known which instance it runs on.

    Attributes:
        step: how it is called.
        limit: what its output limits.
    """

    step: StepSpec
    limit: KeyLimit

    @property
    def name(self) -> str:
        """The function's name."""
        return self.step.name

    def definition(self, schedule_timeout_ms: int) -> StepDefinition:
        """The step that it travels as.

        Args:
            schedule_timeout_ms: the workflow's: how long a run may wait for a worker that can call it; 0 for ever.
        """
        return StepDefinition(self.name, timeout_ms=TIMEOUT_MS, schedule_timeout_ms=schedule_timeout_ms, kind=KEY, slots=0)

    def concurrency(self) -> ConcurrencyDefinition:
        """The limit of its workflow that it stands for."""
        return ConcurrencyDefinition(self.limit.max_runs, self.limit.strategy, self.name, FUNCTION)


def read_limit(options: KeyOptions, decorator: str) -> KeyLimit:
    """Read the options of a key function.

    Args:
        options: as the user wrote them.
        decorator: names it in messages.

    Raises:
        DefinitionError: for an option that can't be.
    """
    refuse_unknown(options, KeyOptions.__annotations__, decorator)
    return KeyLimit(
        max_runs=read_max_runs(options.get("max_runs", 1), decorator),
        strategy=read_strategy(options.get("limit_strategy", ConcurrencyLimitStrategy.GROUP_ROUND_ROBIN), decorator),
    )


def limit_of(thing: object) -> KeyLimit | None:
    """What `@mesh.concurrency()` left on a method, bound or not; None when it did not mark it."""
    mark = getattr(thing, KEY_MARK, None)
    return mark if isinstance(mark, KeyLimit) else None


def is_key_mark(thing: object) -> bool:
    """Whether `@mesh.concurrency()` has marked this method."""
    return limit_of(thing) is not None


def read_key(raw: Any, limit: KeyLimit, workflow: str, name: str, input_type: Any, namespace: Namespace, *, attribute: str = "") -> KeySpec:
    """Read a key function.

    Args:
        raw: the function, or the attribute as it stands in the class.
        limit: its options.
        workflow: the workflow's name.
        name: its own.
        input_type: of the workflow, for a function that doesn't name one.
        namespace: names that annotations may use besides the module's.
        attribute: the method's name, "" for a function.

    Raises:
        DefinitionError: when it can't be called, or says that it returns no text.
    """
    function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
    what = f"key function {name!r} of workflow {workflow!r}"
    is_method = bool(attribute) and not isinstance(raw, staticmethod)
    signature = read_signature(function, what, namespace, method=is_method, role="key function")
    _refuse_result(signature, what)
    settings = StepSettings(name, (), TIMEOUT_MS, None, 0, 0.0, 0, 0, slots=0)
    kind = input_type if is_untyped(signature.input_type) else signature.input_type
    spec = make_spec(workflow, name, function, settings, signature, kind, attribute, role="key function")
    return KeySpec(replace(spec, dump_output=_dumper(what)), limit)


def _refuse_result(signature: StepSignature, what: str) -> None:
    result = signature.output_type
    if isinstance(result, type) and result not in _OPEN and not issubclass(result, str):
        name = "None" if result is type(None) else result.__name__
        raise DefinitionError(f"{what} says that it returns {name}: it must return the key, a text")


def _dumper(what: str) -> Dump:
    def dump(value: Any) -> bytes:
        if isinstance(value, str) and 1 <= len(value) <= KEY_CHARACTERS_MAX:
            try:
                return to_json(value)
            except (ValueError, UnicodeError) as error:
                raise InvalidOutput(f"{what} returned {_repr.repr(value)}, which can't be written as JSON: {error}") from error
        raise InvalidOutput(f"{what} returned {_shown(value)}: return a text of 1 to {KEY_CHARACTERS_MAX} characters")

    return dump


def _shown(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, str):
        return f"a text of {len(value):,} characters ({_repr.repr(value)})" if value else "an empty text"
    return f"{type(value).__qualname__} ({_repr.repr(value)})"
