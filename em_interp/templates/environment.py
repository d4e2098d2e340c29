"""Chat templates, rendered within bounds: the one door to a template that somebody else wrote.

A template is a program. transformers' sandbox keeps it from the machine, not from looping for ever
or building a giant text. Here every loop, call, operation and value is paid for out of a budget
that grows with what is rendered, and what grows a text is paid for before it grows. A template that
overspends is refused; any other gives, byte for byte, what transformers gives. No clock is read, so
a refusal is the same on every machine. What no template needs is refused by name.
Knows Jinja. Knows nothing of messages, tokens or models.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes, pass_context
from jinja2.ext import Extension
from jinja2.runtime import BlockReference, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner
from jinja2.visitor import NodeTransformer
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from em_interp.errors import InputError, reading
from em_interp.templates.meter import (
    BITS,
    EACH,
    IDLE,
    LONGEST,
    PLAIN,
    STEP,
    VALUES,
    Meter,
    OverspentError,
)

PARTS = (Macro, LoopContext, BlockReference, Undefined, Cycler, Joiner, Extension)

_METER: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered(budget: int) -> Iterator[None]:
    """While this lasts, what templates do in this thread is paid for out of one budget."""
    token = _METER.set(Meter(budget))
    try:
        yield
    finally:
        _METER.reset(token)


@pass_context  # so that Jinja never takes the result for a constant
def _read(_: object, value: Any) -> Any:
    return _METER.get().read(value)


@pass_context
def _shown(_: object, value: Any) -> Any:
    meter, before = _METER.get(), _METER.get().left
    meter.read(value)
    meter.shown += before - meter.left
    return value


@pass_context
def _made(_: object, value: Any) -> Any:
    _METER.get().spend(STEP)
    return _METER.get().made(value)


@pass_context
def _spend(_: object, much: int) -> str:
    _METER.get().spend(much)
    _METER.get().shown += much
    return ""


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    lead = int(hasattr(function, "jinja_pass_arg"))  # a context or the like comes first

    @wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        meter, rest = _METER.get(), given[lead:]
        used = meter.using("|", name, (*rest, *named.values()))
        return meter.made(function(*given[:lead], *used[: len(rest)], **named))

    return bounded


def _test(function: Any) -> Callable[..., Any]:
    lead = int(hasattr(function, "jinja_pass_arg"))

    @wraps(function)
    def bounded(*given: Any) -> Any:
        for value in given[lead:]:
            _METER.get().read(value)
        return function(*given)

    return bounded


class _Paying(NodeTransformer):
    """A template in which loops, texts, slices, lists and comparisons are paid for as they come.

    Operators, calls, filters and tests are `Bounded`'s.
    """

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._step(STEP, node), lineno=node.lineno))
        if node.test is not None:  # turns that it leaves out never come to the body
            step = nodes.Not(self._step(STEP, node), lineno=node.lineno)
            node.test = nodes.And(step, node.test, lineno=node.lineno)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:  # noqa: N802
        self.generic_visit(node)
        fixed = sum(len(one.data) for one in node.nodes if isinstance(one, nodes.TemplateData))
        inner = [self._paid(one, "shown") for one in node.nodes]
        node.nodes = [self._step(fixed, node), *inner] if fixed else inner
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Concat:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [self._paid(one, "read") for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802
        self.generic_visit(node)
        node.expr = self._paid(node.expr, "read")
        for operand in node.ops:
            operand.expr = self._paid(operand.expr, "read")
        return node

    def _built(self, node: Any) -> nodes.Expr:
        self.generic_visit(node)
        return self._paid(node, "made") if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = _built  # noqa: N815

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):
            return self._built(node)
        self.generic_visit(node)
        return node

    def _paid(self, node: nodes.Expr, how: str) -> nodes.Expr:
        if isinstance(node, nodes.TemplateData | nodes.Const):
            return node
        if isinstance(node, nodes.List | nodes.Tuple) and all(
            isinstance(one, nodes.Const) for one in node.items
        ):
            return node
        return nodes.Filter(node, f"bounded.{how}", [], [], None, None, lineno=node.lineno)

    def _step(self, much: int, at: nodes.Node) -> nodes.Expr:
        of = nodes.Const(much, lineno=at.lineno)
        return nodes.Filter(of, "bounded.spend", [], [], None, None, lineno=at.lineno)


class Bounded(ImmutableSandboxedEnvironment):
    """transformers' environment for chat templates, in which everything is paid for."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, theirs: Environment) -> None:
        super().__init__(
            trim_blocks=theirs.trim_blocks,
            lstrip_blocks=theirs.lstrip_blocks,
            extensions=[type(one) for one in theirs.extensions.values()],
        )
        self.globals = theirs.globals
        self.filters = {name: _filter(name, one) for name, one in theirs.filters.items()}
        ours = {"read": _read, "shown": _shown, "made": _made, "spend": _spend}
        self.filters |= {f"bounded.{name}": one for name, one in ours.items()}
        self.tests = {
            name: one if name in IDLE else _test(one) for name, one in theirs.tests.items()
        }

    def _generate(self, source: nodes.Template, *more: Any, **named: Any) -> str:
        return super()._generate(_Paying().visit(source), *more, **named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """A binary operation, its result's size paid for before it is there."""
        meter = _METER.get()
        meter.spend(STEP)
        match operator, left, right:
            case "*", int(), int():
                pass
            case ("*", int(times), value) | ("*", value, int(times)):
                meter.spend(meter.weigh(value).text * max(times, 0))
            case "**", int(), int() if left.bit_length() * right > BITS:
                raise OverspentError("reckons with too large a number")
            case "%", str(), _:
                meter.formatted(left, "%", right)
        return meter.made(super().call_binop(context, operator, left, right))

    def call(self, context: Any, called: Any, /, *given: Any, **named: Any) -> Any:
        """A call of what a template may call, paid for."""
        meter = _METER.get()
        method = getattr(called, "__wrapped__", called)  # the sandbox's own `str.format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, VALUES):
            used = meter.using(".", method.__name__, (owner, *given, *named.values()))
            given = used[1 : len(given) + 1]
        elif isinstance(called, PARTS) or any(called is one for one in self.globals.values()):
            meter.spend(STEP)
            if getattr(called, "__name__", "") == "generate_lorem_ipsum":
                raise OverspentError("uses 'lipsum', which no chat template needs")
        elif isinstance(owner, PARTS):
            meter.spend(STEP + meter.shown // 64)  # a marked piece joins all that was written
            for value in given:
                meter.read(value)
        else:
            name = getattr(method, "__name__", type(called).__name__)
            raise OverspentError(f"calls {name!r}, which no chat template needs")
        return meter.made(super().call(context, called, *given, **named))


@lru_cache(maxsize=32)
def _compiled(source: str) -> Template:
    if len(source) > LONGEST:
        raise OverspentError(f"has {len(source)} characters, the most is {LONGEST}")
    with metered(PLAIN):
        return Bounded(_compile_jinja_template("").environment).from_string(source)


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    turns: list[dict[str, str]],
    places: list[tuple[int, int]] | None = None,
    **choices: Any,
) -> str:
    """A conversation as the tokenizer's template writes it.

    `places` gets the (start, end), in characters, of the pieces that the template marks as
    generated. Raises `InputError` for a template that overspends or cannot be rendered, and Jinja's
    `TemplateError` for one that refuses the conversation.
    """
    name = f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}"
    given: dict[str, Any] = {"messages": turns, "tools": None, "documents": None}
    given |= {**tokenizer.special_tokens_map, **choices}
    budget = PLAIN + EACH * Meter(1 << 40).weigh(turns).text
    passing = (TemplateError, OverspentError)
    try:
        with reading(name, "its chat template cannot be rendered", passing):
            template = _compiled(tokenizer.get_chat_template())
            with metered(budget):
                if places is None:
                    return template.render(given)
                pieces: list[str] = []
                with template.environment.activate_tracker(pieces, places):  # type: ignore[attr-defined]
                    pieces.extend(template.generate(given))
                return "".join(pieces)
    except OverspentError as fault:
        raise InputError(f"{name}: its chat template {fault}") from None
