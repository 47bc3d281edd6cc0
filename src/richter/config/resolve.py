"""Decide each setting: flags over environment over `.env` over `config.yaml` over defaults."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from richter.config.settings import Settings
from richter.config.sources import FILE_NAME, Given, from_dotenv, from_environment, from_yaml
from richter.errors import ConfigError


class Resolved(NamedTuple):
    """The settings, and for each where its value comes from."""

    settings: Settings
    sources: Mapping[str, str]

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """Name, value and source of each setting, in the order of the table."""
        for name in Settings.__struct_fields__:
            yield name, getattr(self.settings, name), self.sources[name]


def resolve(
    flags: Mapping[str, Given] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path = Path(),
    config_file: Path | None = None,
) -> Resolved:
    """Read and check every source of settings.

    Args:
        flags: Values given on the command line, by setting.
        environ: The environment's variables.
        folder: Where `.env` and `config.yaml` are looked for; neither has to exist.
        config_file: A file to read in the place of `config.yaml`; it has to exist.

    Raises:
        ConfigError: An unknown name, or a value of the wrong type or out of range.
    """
    given: dict[str, Given] = {
        **from_yaml(config_file or folder / FILE_NAME, required=config_file is not None),
        **from_dotenv(folder / ".env"),
        **from_environment(environ or {}),
        **(flags or {}),
    }
    settings = Settings(**{name: _checked(name, each) for name, each in given.items()})
    if len(set(settings.products)) < len(settings.products):
        raise _wrong("products", given["products"], "each product once")
    if settings.alert_off > settings.alert_on:
        name = "alert_off" if "alert_off" in given else "alert_on"
        raise _wrong(
            name, given[name], f"alert_off at most alert_on, not {settings.alert_off} and {settings.alert_on}"
        )
    sources = {name: each.source for name, each in given.items()}
    return Resolved(settings, {name: sources.get(name, "default") for name in Settings.__struct_fields__})


def _checked(name: str, given: Given) -> Any:
    annotation = _ANNOTATIONS[name]
    try:
        value = msgspec.convert(given.value, annotation, strict=not given.is_text, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        raise _wrong(name, given, expectation(name)) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(name, given, expectation(name))
    return value


def _wrong(name: str, given: Given, expected: str) -> ConfigError:
    shown = None if is_secret(name) else given.value
    return ConfigError(f"{name} (from {given.source}) is wrong", shown, f"expected {expected}")


def _to_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError("not a path")


_ANNOTATIONS = {each.name: each.type for each in msgspec.structs.fields(Settings)}


def expectation(name: str) -> str:
    """The kind of value that a setting takes, in words."""
    return cast(str, _meta(name).title)


def description(name: str) -> str:
    """What a setting does, in a sentence."""
    return cast(str, _meta(name).description)


def is_secret(name: str) -> bool:
    """Whether a setting's value must not be shown."""
    return bool((_meta(name).extra or {}).get("secret"))


def _meta(name: str) -> msgspec.Meta:
    # The last one: an annotated type that is annotated again carries both.
    return cast(msgspec.Meta, _ANNOTATIONS[name].__metadata__[-1])
