"""
The command ``authz``: one file per command, loaded when it is asked for.

``cli/<command>.py`` holds ``command``, or a click command of the file's name. Exit codes are ``terminal.Exit``. Every
option has a twin in the environment, ``AUTHZ_<COMMAND>_<OPTION>``. Answers go to stdout, remarks to stderr.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from authz.core.errors import AuthzError, LoadError

COMMANDS = {
    "init": "Write the first files of a mesh of your own.",
    "up": "Start that mesh on this machine, to try it.",
    "serve": "Answer Envoy's questions: the authorization server.",
    "status": "Ask a running server whether it is ready, and which policies are in force.",
    "validate": "Check policies, every problem at once.",
    "check": "Decide one request.",
    "explain": "Decide one request, and say why.",
    "test": "Run suites of test cases against policies.",
    "analyze": "Look for traps in a whole set of policies.",
    "diff": "Tell which requests a change of policies answers differently.",
    "prove": "Prove invariants of policies, for all requests.",
    "who-can": "Tell who can do something, and what a caller can reach.",
    "audit": "Read the record of decisions.",
    "replay": "Decide recorded traffic again, by other policies.",
    "generate": "Write policies that allow what was recorded.",
    "candidate": "Put policies that decide in shadow in force, or forget them.",
    "mtls": "Find out where STRICT mutual TLS is safe.",
    "compile": "Compile policies to filters that Envoy decides by itself.",
    "verify": "Try your policies on a real Envoy.",
    "doctor": "Go through the hardening checklist on a running installation.",
    "mesh": "Render Envoy configuration from a mesh description.",
    "control": "Serve a fleet of Envoys their configuration: the control plane.",
    "fleet": "Tell what every replica and proxy of a fleet runs.",
    "ca": "Run and inspect the certificate authority.",
    "bundle": "Build, sign, verify and fetch signed bundles of policies.",
    "policies": "Push policies to the truth of a fleet; its revisions.",
    "truth": "Configure, prepare and inspect the NATS servers that a fleet shares.",
    "rotation": "Watch and steer the rotation of certificates.",
    "demo": "Start Bookinfo on real Envoys.",
}
"""Every command with its line of help, in the order of ``authz --help``."""

_FOLDER = Path(__file__).parent


class LazyGroup(click.Group):
    """Loads a command's file when the command is run, so that ``authz --help`` reads no other library."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order of the help."""
        return [name for name in COMMANDS if (_FOLDER / f"{_module(name)}.py").exists() or (_FOLDER / name).is_dir()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of a command when it is called; None for an unknown one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = import_module(f"authz.cli.{_module(cmd_name)}")
        command = getattr(module, "command", None) or getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        name_variables(command, f"AUTHZ_{_constant(cmd_name)}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve like click, and offer a close name for an unknown one."""
        name = args[0]
        if name not in self.list_commands(ctx) and not name.startswith("-"):
            import difflib

            close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
            ctx.fail(f"no such command `{name}`{f'; did you mean `{close[0]}`?' if close else ''}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help from one line each, without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what the world or the user's files did wrong ends in a message, not in a traceback."""
        from authz.cli import terminal

        try:
            return super().invoke(ctx)
        except click.BadParameter as error:
            kind = error.param.type if error.param is not None else None
            if isinstance(error, click.MissingParameter) or not isinstance(kind, click.Path | click.File):
                raise
            _fail(f"{error.message[:1].lower()}{error.message[1:].rstrip('.')}", error)  # no matter of usage
        except click.UsageError:
            raise
        except click.ClickException as error:
            _fail(error.message, error)
        except LoadError as error:
            terminal.print_problems(error.problems, terminal.remarks())
            terminal.remark(str(error))
            raise SystemExit(terminal.Exit.FAILED) from error
        except AuthzError as error:
            _fail(str(error), error)
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            _fail(f"{place}{error.strerror or error}", error)


def _module(command: str) -> str:
    """The file of a command, without ``.py``."""
    return command.replace("-", "_")


def _fail(message: str, cause: Exception) -> NoReturn:
    """End without an answer."""
    from authz.cli import terminal

    terminal.remark(f"error: {message}")
    raise SystemExit(terminal.Exit.FAILED) from cause


@click.group(
    cls=LazyGroup,
    context_settings={"auto_envvar_prefix": "AUTHZ", "help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Exit codes: 0 yes, 3 no (denied, problems found, a test failed), 1 could not answer, 2 wrong usage. "
    "Every option can be given in the environment as AUTHZ_<COMMAND>_<OPTION>.",
)
@click.version_option(package_name="authz-mesh", prog_name="authz")
def application() -> None:
    """
    Istio's security policies for any Envoy.

    \b
    authz validate policies/                    check what you wrote
    authz check --policies policies/ --namespace shop --path /cart
    authz explain --policies policies/ --file request.yaml
    authz test tests/*.yaml --coverage          test what you mean
    authz serve --policies policies/            enforce it
    """


def name_variables(command: click.Command, prefix: str) -> frozenset[str]:
    """
    Name the variables of the environment after the options as they are written: click takes the names of arguments.

    Returns:
        The variables of the command's options, those of its commands included.
    """
    found: set[str] = set()
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        written = next((name for name in option.opts if name.startswith("--")), option.name or "")
        option.envvar = f"{prefix}_{_constant(written)}"
        found.add(option.envvar)
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        found |= name_variables(inner, f"{prefix}_{_constant(name)}")
    return frozenset(found)


def _constant(name: str) -> str:
    return name.lstrip("-").upper().replace("-", "_")


def main() -> None:
    """Run the command line; the entry point of the package."""
    application(prog_name="authz")
    sys.exit(0)
