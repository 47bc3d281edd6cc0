"""Every error that richter raises on purpose, divided by whose fault it is.

    RichterError
    ├── OperatorError             the operator's: what was typed, configured or handed in
    │   ├── ConfigError             a setting: unknown key, wrong type, out of range       (exit 2)
    │   ├── ArgumentsError          a command line that asks for the impossible            (exit 2)
    │   ├── InputFileError          an input file: absent, unreadable, not what it should be
    │   ├── SchemaMismatchError     a table or model made with another set of features
    │   ├── DataFolderError         the data folder: not writable, locked, full
    │   └── ExtraMissingError       an optional dependency that is not installed
    ├── FeedError                 the exchange's: connection refused, subscription rejected
    ├── TransportError            the broker's: unreachable, topic missing, transaction lost
    └── ContractError             ours: an invariant of richter is broken                  (exit 70)

A process that ends by one of these exits with the code shown, else with 1: the job was not done.
"""

from typing import ClassVar, Self


class RichterError(Exception):
    """A failure with its cause and its cure, told in one sentence.

    Args:
        fact: What is wrong, without a full stop: `"config.yaml has an unknown key"`.
        value: The offending value; None where there is none to show.
        fix: What the reader can do about it; empty where nothing can be done.

    >>> str(RichterError("config.yaml has an unknown key", "sped", "did you mean 'speed'?"))
    "config.yaml has an unknown key: 'sped'; did you mean 'speed'?"
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, fact: str, value: object = None, fix: str = "") -> None:
        # All three go to the base class, or the error could not be sent back by a worker process.
        super().__init__(fact, value, fix)
        self.fact = fact
        self.value = value
        self.fix = fix

    def __str__(self) -> str:
        told = self.fact if self.value is None else f"{self.fact}: {self.value!r}"
        return f"{told}; {self.fix}" if self.fix else told


class OperatorError(RichterError):
    """The operator's fault: richter does not do what it was asked for, as it was asked."""


class ConfigError(OperatorError):
    """A setting that is unknown, of the wrong type or out of range."""

    exit_code = 2


class ArgumentsError(OperatorError):
    """Arguments that are well-formed one by one and make no sense together."""

    exit_code = 2


class InputFileError(OperatorError):
    """An input file that is absent, unreadable or not what it should be."""


class SchemaMismatchError(OperatorError):
    """A table or a model that was made with another set of features than this version's."""


class DataFolderError(OperatorError):
    """The data folder cannot be used: not writable, in use by another process, or full."""


class ExtraMissingError(OperatorError):
    """An optional dependency is needed and not installed."""

    @classmethod
    def naming(cls, package: str, extra: str) -> Self:
        """Build the error for a package that comes with one of richter's extras."""
        return cls("this needs a package that is not installed", package, f"pip install 'richter[{extra}]'")


class FeedError(RichterError):
    """The exchange's fault: it refuses the connection, rejects the subscription or talks nonsense."""


class TransportError(RichterError):
    """The broker's fault: it is unreachable, lacks a topic or has lost a transaction."""


class ContractError(RichterError):
    """Our fault: something that richter promises itself does not hold."""

    exit_code = 70
