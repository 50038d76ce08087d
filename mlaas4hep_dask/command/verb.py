"""A verb of the command line: its help, its options, its errors and its exit status."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from mlaas4hep_dask import __version__
from mlaas4hep_dask.command.ends import ended_by_signals, interrupt_of, status_of
from mlaas4hep_dask.errors import MLaaSError, did_you_mean

SUCCESS, DIFFERENT, FAULT, TROUBLE = (
    0,
    1,
    1,
    2,
)  # exit statuses; 1 is a fault of the program otherwise
STATUSES = (
    "Exit status: 0 success, 1 a fault of this program, 2 something you can mend, "
    "129 terminal closed, 130 interrupted, 143 terminated"
)
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
LINE = f"{__name__}.line"  # key of a context's meta

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Verb(click.Command):
    """One thing that a command does; its function returns None or an exit status.

    Parameters
    ----------
    *arguments, **options
        As of `click.Command`.
    examples : sequence of str
        What comes after the name of the command, one for each line of the help.
    statuses : str
        What the help says of exit statuses.
    interrupted : str
        What is printed when it is ended by a signal.
    """

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        statuses: str = STATUSES,
        interrupted: str = "interrupted",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **{"context_settings": SETTINGS, **options})
        self.examples = tuple(examples)
        self.statuses = statuses
        self.interrupted = interrupted

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options, and keep the line they stand on."""
        ctx.meta[LINE] = (*ctx.command_path.split(), *args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> int:
        """Do it; the exit status."""
        try:
            return super().invoke(ctx) or SUCCESS
        except (KeyboardInterrupt, Exception) as error:
            ended = interrupt_of(error)
            if ended is None:
                raise
            click.echo(self.interrupted, err=True)
            return status_of(ended)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit statuses."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:  # never wrapped: they are copied
                    line = f"{ctx.command_path} {example}".rstrip()
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        formatter.write_paragraph()
        formatter.write_text(self.statuses)


class Group(click.Group):
    """A command with verbs, which may be loaded when they are asked for.

    Parameters
    ----------
    *arguments, **options
        As of `click.Group`.
    places : mapping of str to str
        ``module:attribute`` of a verb by its name.
    """

    def __init__(
        self, *arguments: Any, places: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        settings = {"context_settings": SETTINGS, "no_args_is_help": False}
        super().__init__(*arguments, **{**settings, **options})
        self._places = dict(places or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options, or print the help where nothing is asked for."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(TROUBLE)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they were given."""
        del ctx
        return [*self._places, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb of a name."""
        if cmd_name in self._places:
            module, _, name = self._places[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that is asked for."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = did_you_mean(name, self.list_commands(ctx))
            raise click.UsageError(f"there is no command {name!r}{near}", ctx)
        return super().resolve_command(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Tell where the options of a verb are."""
        formatter.write_paragraph()
        formatter.write_text(f"{ctx.command_path} COMMAND --help describes a command.")


def status(command: click.Command, arguments: Sequence[str] | None = None, *, name: str) -> int:
    """Run a command; its exit status.

    Errors that a user can mend are told in one line on standard error.

    Parameters
    ----------
    command : Command
        A verb, or a group of them.
    arguments : sequence of str, optional
        Those of this process by default.
    name : str
        How the command is called.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with command.make_context(name, words) as context:
            exit_status: int = command.invoke(context)
            return exit_status
    except click.exceptions.Exit as end:  # after --help and the like
        return end.exit_code
    except click.ClickException as error:
        return _told(_usage(error))
    except MLaaSError as error:
        return _told(str(error))


def exit_status(error: BaseException) -> int:
    """What a command ends with that an error breaks off."""
    if isinstance(error, KeyboardInterrupt):
        return status_of(error)
    return TROUBLE if isinstance(error, MLaaSError) else FAULT


def process(
    command: click.Command, *, name: str, clean_up: Callable[[], object] = lambda: None
) -> int:
    """Run a command as a process of its own, which ends when this returns; its exit status.

    Parameters
    ----------
    command : Command
        A verb, or a group of them.
    name : str
        How the command is called.
    clean_up : function
        Called at the end, also when the command does not end by itself after a signal.
    """
    try:
        with ended_by_signals(clean_up, last=True):
            code = status(command, name=name)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt as ended:  # before there was anything to interrupt
        return status_of(ended)
    except BrokenPipeError:  # whoever read the output has gone, as in ``| head -1``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        clean_up()
        # Else the interpreter looks for garbage in all that was imported, to end then: it takes
        # half a second with Dask, and more than one with torch.
        gc.freeze()


def line_of(context: click.Context) -> str:
    """The line that a shell would need to do the same."""
    return shlex.join(context.meta[LINE])


def words_of(context: click.Context) -> list[str]:
    """The words that were written after the name of the command."""
    path = context.command_path.split()
    return list(context.meta[LINE][len(path) :])


def option_of(key: str) -> str:
    """The option that sets a key of the section ``cluster``."""
    return "--cluster" if key == "address" else f"--{key}"


def arguments_of(context: click.Context) -> str:
    """What was written after the name of the command."""
    return " ".join(words_of(context))


def start_log(*, verbose: bool) -> None:
    """Print the library's log, or only its warnings, on standard error."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


def verbose_option(function: Decorated) -> Decorated:
    """The option ``--verbose``."""
    return click.option("-v", "--verbose", is_flag=True, help="Print the library's log.")(function)


def count_option(
    name: str, text: str, *, default: int | None = None
) -> Callable[[Decorated], Decorated]:
    """An option that takes a whole number of at least 1."""
    kind = click.IntRange(min=1)
    help_options: dict[str, Any] = {"default": default, "show_default": True} if default else {}
    return click.option(name, metavar="N", type=kind, help=text, **help_options)


def version_option(function: Decorated) -> Decorated:
    """The option ``--version``."""
    return click.version_option(__version__, message="%(version)s", help="Print the version.")(
        function
    )


def _told(message: str) -> int:
    """Print an error as a terminal shows it, whatever others have put into it."""
    text = "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else letter.encode("unicode-escape").decode()
        for letter in message
    )
    click.echo(f"error: {text}", err=True)
    return TROUBLE


def _usage(error: click.ClickException) -> str:
    """What is wrong with the options, in one line, and where to look."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.NoSuchOption) and context is not None:
        parameters = context.command.get_params(context)
        names = [name for parameter in parameters for name in parameter.opts]
        near = did_you_mean(error.option_name, names)
        message = f"there is no option {error.option_name!r}{near}"
    else:
        message = error.format_message().rstrip(".")
    if context is not None and "did you mean" not in message:
        message += f"; see {context.command_path} --help"
    return f"{message[:1].lower()}{message[1:]}"
