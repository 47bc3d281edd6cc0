"""Run a command and turn whatever it raises into one sentence and an exit code.

0    done
1    not done; the sentence on standard error says why and what to do
2    never begun: the arguments or the settings are wrong
70   our fault; the traceback is in the file that the sentence names
130  interrupted from the keyboard
141  the reader of standard output went away (`| head`)
"""

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

import click

from richter.errors import ContractError, RichterError

EXIT_OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130


def run(command: click.Command, arguments: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run the command and return its exit code. With RICHTER_DEBUG set, errors keep their traceback.

    Args:
        command: What to run.
        arguments: Its arguments; None is those of the process.
        name: What the program is called in messages.
    """
    name = name or command.name or "richter"
    try:
        code = command.main(arguments, name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{name}: interrupted", err=True)
        return EXIT_INTERRUPTED
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1  # Click's answer to a broken pipe
    except BrokenPipeError:
        # Python flushes standard output once more on the way out, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _report(error, name)


def _report(error: Exception, name: str) -> int:
    if os.environ.get("RICHTER_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, RichterError) and not isinstance(error, ContractError):
        click.echo(f"{name}: {error}", err=True)
        return error.exit_code
    handle, path = tempfile.mkstemp(prefix="richter-traceback-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        traceback.print_exception(error, file=file)
    told = f"{name}: internal error, our fault: {type(error).__name__}: {error}"
    click.echo(f"{told}; please report it with the traceback in {path}", err=True)
    return EXIT_OUR_FAULT
