"""Options of a model as options of a command, so that what a submit may say is written once.

The model is imported when the command is run or asks for its help, not for `fpga --help`: that stays quick.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from orchestrator.contracts.base import Asked

CONTRACTS = "orchestrator.contracts."
Command = Callable[..., None]


def takes(app: typer.Typer, model: str, *, without: Collection[str] = (), **names: str) -> Callable[[Command], Command]:
    """Register a command that has one option for each field of a model, and gets the checked model as `options`.

    Args:
        model: `module:Class` of a room of contracts, such as `portraits:SubmitOptions`.
        without: fields that this command does not offer.
        names: what the command calls a field, where it is not the field's own name.
    """

    asked: ContextVar[dict[str, object]] = ContextVar("asked")

    class WithOptions(TyperCommand):
        def get_params(self, ctx: Any) -> Any:  # typer keeps the types of its own click to itself
            *own, about_help = super().get_params(ctx)
            return [*own, *_parameters(_model(model), without, names), about_help]

        def invoke(self, ctx: Any) -> Any:
            names = [name for name in _model(model).model_fields if name not in without]
            asked.set({name: ctx.params.pop(name) for name in names})
            return super().invoke(ctx)

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            command(**given, options=_model(model).asked(**asked.get()))

        own = {name: text for name, text in command.__annotations__.items() if name not in ("options", "return")}
        hints = get_type_hints(SimpleNamespace(__annotations__=own), command.__globals__, include_extras=True)
        parameters = [one for name, one in inspect.signature(command).parameters.items() if name != "options"]
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # what typer reads
            [one.replace(annotation=hints[one.name]) for one in parameters]
        )
        run.__annotations__ = hints
        app.command(cls=WithOptions)(run)
        return run

    return decorate


def _model(name: str) -> type[Asked]:
    module, _, model = name.partition(":")
    found: type[Asked] = getattr(import_module(CONTRACTS + module), model)
    return found


def _parameters(model: type[Asked], without: Collection[str], names: Mapping[str, str]) -> list[Any]:
    """Return the options of a model, as typer makes them of a function's parameters."""
    offered = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=_option(field, names.get(name, name)),
        )
        for name, field in model.model_fields.items()
        if name not in without
    ]

    def fields() -> None:
        """Stand for a function with these parameters."""

    fields.__signature__ = inspect.Signature(offered)  # type: ignore[attr-defined]  # what typer reads
    fields.__annotations__ = {one.name: one.annotation for one in offered}
    alone = typer.Typer(add_completion=False)
    alone.command()(fields)
    return list(typer.main.get_command(alone).params)


def _default(field: FieldInfo) -> object:
    return field.default if isinstance(field.default, (str, int, float, bool)) else None


def _option(field: FieldInfo, name: str) -> object:
    kind = _plain(field.annotation)
    wanted: Any = kind if field.default is not None else kind | None
    limits: dict[str, Any] = {}
    if kind in (int, float):
        limits = {
            side: getattr(one, limit)
            for one in field.metadata
            for side, limit in (("min", "ge"), ("max", "le"))
            if hasattr(one, limit)
        }
    return Annotated[wanted, typer.Option("--" + name.replace("_", "-"), help=field.description, **limits)]


def _plain(annotation: Any) -> Any:
    """Return what a command line can read: a number, true or false, one of some words, else text."""
    members = [one for one in get_args(annotation) if one is not type(None)]
    kind = members[0] if type(None) in get_args(annotation) and get_origin(annotation) is not Literal else annotation
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind if get_origin(kind) is Literal or kind in (int, float, bool) else str
