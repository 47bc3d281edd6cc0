"""Where settings come from: `config.yaml`, `.env`, the environment, flags."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from richter.config.settings import Settings
from richter.errors import ConfigError

FILE_NAME = "config.yaml"

# Other programs read these too, so they carry no prefix.
_PLAIN = ("coinbase_ws_url", "kafka_", "mlflow_tracking_uri")
VARIABLES: Mapping[str, str] = {
    name: name.upper() if name.startswith(_PLAIN) else f"RICHTER_{name.upper()}"
    for name in Settings.__struct_fields__
}
# Read by the command line, from the environment only.
_NO_SETTINGS = ("RICHTER_CONFIG", "RICHTER_DEBUG")


class Given(NamedTuple):
    """A value as somebody gave it.

    `is_text` says that it was typed where all is text, so that "10" may stand for the number.
    """

    value: object
    source: str
    is_text: bool


def from_environment(variables: Mapping[str, str]) -> dict[str, Given]:
    """The settings among the environment's variables. An empty one counts as absent, as Compose passes it.

    Raises:
        ConfigError: A variable begins with RICHTER_ and names no setting.
    """
    settings = {name: value for name, value in variables.items() if name not in _NO_SETTINGS}
    return _from_variables(settings, "the environment")


def from_dotenv(path: Path) -> dict[str, Given]:
    """The settings in a `.env` file, which need not exist. It may hold other programs' variables too.

    Raises:
        ConfigError: A line cannot be read, or a variable begins with RICHTER_ and names no setting.
    """
    if not path.is_file():
        return {}
    from dotenv.parser import parse_stream

    bindings = list(parse_stream(StringIO(_read(path).decode(errors="replace"))))
    for each in bindings:
        if each.error:
            # The line itself may hold a password.
            raise ConfigError(
                f"{path} has a line that is no NAME=value", fix=f"see line {each.original.line}"
            )
    return _from_variables({each.key: each.value or "" for each in bindings if each.key}, str(path))


def from_yaml(path: Path, *, required: bool) -> dict[str, Given]:
    """The settings in a YAML file. A missing or empty file holds none.

    Raises:
        ConfigError: The file is required and missing, is not a YAML mapping, or has an unknown key.
    """
    if not required and not path.exists():
        return {}
    import yaml

    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        fix = f"see line {mark.line + 1}" if mark else ""
        raise ConfigError("the settings file is not YAML", str(path), fix) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError("the settings file is no list of `name: value` lines", str(path))
    for key in content:
        _require_known(str(key), Settings.__struct_fields__, f"{path} has an unknown key")
    return {key: Given(value, str(path), is_text=False) for key, value in content.items()}


def from_text(name: str, text: str) -> object:
    """Split a text into the list or the mapping that the setting is made of.

    >>> from_text("products", "BTC-USD, ETH-USD")
    ['BTC-USD', 'ETH-USD']
    >>> from_text("price_decimals", "BTC-USD=2")
    {'BTC-USD': '2'}
    """
    if name == "products":
        return [item.strip() for item in text.split(",")]
    if name == "price_decimals":
        pairs = (item.partition("=") for item in text.split(","))
        return {product.strip(): decimals.strip() for product, _, decimals in pairs}
    return text


def _from_variables(variables: Mapping[str, str], place: str) -> dict[str, Given]:
    for variable in variables:
        if variable.startswith("RICHTER_"):
            _require_known(variable, tuple(VARIABLES.values()), f"{place} has an unknown variable")
    return {
        name: Given(from_text(name, variables[variable]), f"{place}, {variable}", is_text=True)
        for name, variable in VARIABLES.items()
        if variables.get(variable)
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError("the settings file cannot be read", str(path), error.strerror or "") from error


def _require_known(name: str, known: Collection[str], fact: str) -> None:
    if name not in known:
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ConfigError(fact, name, f"the nearest known one is {nearest}")
