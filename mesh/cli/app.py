"""The root of the command: finds the subcommand's file, runs it, turns whatever goes wrong into one line and a code.

Rule: this is the only place that ends with an error; commands raise.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module

import click

from mesh import __version__
from mesh.cli.exits import MEANINGS, Exit, exit_code
from mesh_sdk.errors import MeshError

_COMMANDS = {
    "dev": "An embedded NATS, a scheduler and your worker in one go.",
    "scheduler": "Run a scheduler until SIGTERM.",
    "worker": "Run a worker of a module until SIGTERM.",
    "publish": "Publish an event.",
    "run": "Start a run of a workflow.",
    "runs": "List, show and cancel runs.",
    "workers": "List workers and their slots.",
    "workflows": "List and show workflows.",
    "doctor": "Check everything and say what to do.",
    "demo": "Watch real work survive two kills.",
}
"""Subcommand → what it does. Each stands in the file of its name, as `command`."""


class _Lazy(click.Group):
    """Loads the file of a subcommand when that is called, so that one command doesn't pay for the others."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"mesh.cli.{name}").command
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])
        with formatter.section("Completion"):
            formatter.write_text('bash: eval "$(_MESH_COMPLETE=bash_source mesh)"; zsh_source and fish_source likewise')


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="mesh")
def root() -> None:
    """A durable workflow engine over NATS JetStream.

    MESH_URL (else NATS_URL) and MESH_NAMESPACE say where; --url and --namespace of each command override them.
    """


def run(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: instead of the process's own.

    Returns:
        The exit code; an error has been told in one line on standard error.
    """
    try:
        result = root.main(arguments, prog_name="mesh", standalone_mode=False)
        return result if isinstance(result, int) else Exit.OK
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return Exit.USAGE
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "mesh"
        return _fail(f"{error.format_message()} See: {path} --help", Exit.USAGE)
    except click.Abort:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`mesh runs list | head`): nothing is left to be told, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (MeshError, TimeoutError, KeyboardInterrupt) as error:
        return _fail(str(error) or type(error).__name__, exit_code(error))
    except Exception as error:  # a fault of ours: one line like every error, the rest for whoever looks into it
        if os.environ.get("MESH_DEBUG"):
            traceback.print_exc()
        return _fail(f"{type(error).__name__}: {error} (a fault of the mesh; MESH_DEBUG=1 shows where)", Exit.FAILED)


def _fail(message: str, code: int) -> int:
    click.echo("mesh: " + " ".join(message.split()), err=True)
    return code
