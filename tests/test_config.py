import os
from pathlib import Path

import pytest
import yaml

from richter.cli.main import main
from richter.config import VARIABLES, Given, Settings, description, expectation, resolve
from richter.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path):
    """A folder in which each source gives `stale_after_s` another value."""
    (tmp_path / "config.yaml").write_text("stale_after_s: 2\nrotate_minutes: 2\nmin_free_gib: 2\n")
    (tmp_path / ".env").write_text("RICHTER_STALE_AFTER_S=3\nRICHTER_ROTATE_MINUTES=3\nPATH=elsewhere\n")
    return tmp_path


def flag(value):
    return Given(value, "flag --some-flag", is_text=True)


def test_without_any_source_every_setting_is_the_default(tmp_path):
    resolved = resolve(folder=tmp_path)

    assert resolved.settings == Settings()
    assert set(resolved.sources.values()) == {"default"}


def test_a_flag_wins_over_the_environment_over_dotenv_over_the_file_over_the_default(folder):
    resolved = resolve({"alert_on": flag(5)}, environ={"RICHTER_STALE_AFTER_S": "4"}, folder=folder)

    assert resolved.sources["alert_on"] == "flag --some-flag"
    assert resolved.settings.stale_after_s == 4
    assert resolved.sources["stale_after_s"] == "the environment, RICHTER_STALE_AFTER_S"
    assert resolved.settings.rotate_minutes == 3
    assert resolved.sources["rotate_minutes"] == f"{folder / '.env'}, RICHTER_ROTATE_MINUTES"
    assert resolved.settings.min_free_gib == 2
    assert resolved.sources["min_free_gib"] == str(folder / "config.yaml")
    assert resolved.sources["max_gb"] == "default"


def test_a_flag_wins_over_every_other_source_of_the_same_setting(folder):
    resolved = resolve({"stale_after_s": flag(5)}, environ={"RICHTER_STALE_AFTER_S": "4"}, folder=folder)

    assert resolved.settings.stale_after_s == 5


def test_another_file_takes_the_place_of_config_yaml(folder):
    other = folder / "other.yaml"
    other.write_text("min_free_gib: 7\n")

    resolved = resolve(folder=folder, config_file=other)

    assert resolved.settings.min_free_gib == 7
    assert resolved.sources["min_free_gib"] == str(other)


def test_a_file_that_was_asked_for_has_to_exist(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: '.*none\.yaml'; No such file"):
        resolve(config_file=tmp_path / "none.yaml")


def test_text_becomes_lists_mappings_and_booleans():
    environ = {
        "RICHTER_PRODUCTS": "BTC-USD, ETH-USD",
        "RICHTER_PRICE_DECIMALS": "BTC-USD=2,SHIB-USD=10",
        "RICHTER_COMPRESS": "true",
        "RICHTER_MAX_GB": "null",
        "RICHTER_DATA_DIR": "elsewhere",
    }

    settings = resolve(environ=environ).settings

    assert settings.products == ("BTC-USD", "ETH-USD")
    assert settings.decimals_for("SHIB-USD") == 10
    assert settings.decimals_for("DOGE-USD") == 8
    assert settings.compress is True
    assert settings.max_gb is None
    assert settings.data_dir == Path("elsewhere")
    assert settings.tracking_uri == "sqlite:///elsewhere/mlflow.db"


def test_addresses_that_other_programs_read_too_have_plain_variables():
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "COINBASE_WS_URL": "ws://127.0.0.1:8765",
        "MLFLOW_TRACKING_URI": "http://localhost:5001",
    }

    settings = resolve(environ=environ).settings

    assert settings.kafka_bootstrap_servers == "kafka:9092"
    assert settings.coinbase_ws_url == "ws://127.0.0.1:8765"
    assert settings.tracking_uri == "http://localhost:5001"


def test_an_empty_variable_counts_as_absent():
    resolved = resolve(environ={"KAFKA_BOOTSTRAP_SERVERS": "", "RICHTER_STALE_AFTER_S": ""})

    assert resolved.settings == Settings()


def test_an_unknown_key_fails_and_names_the_nearest_one_and_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("stale_afer_s: 5\n")

    with pytest.raises(ConfigError) as raised:
        resolve(folder=tmp_path)

    assert str(raised.value) == (
        f"{file} has an unknown key: 'stale_afer_s'; the nearest known one is stale_after_s"
    )


@pytest.mark.parametrize("variable", ["RICHTER_PRODUCT", "RICHTER_KAFKA_BOOTSTRAP_SERVERS"])
def test_an_unknown_variable_with_our_prefix_fails(variable):
    with pytest.raises(ConfigError, match=f"unknown variable: '{variable}'; the nearest known one is "):
        resolve(environ={variable: "x"})


def test_an_unknown_variable_in_dotenv_fails_and_names_the_file(tmp_path):
    (tmp_path / ".env").write_text("RICHTER_LOGLEVEL=debug\n")

    with pytest.raises(
        ConfigError, match=r"\.env has an unknown variable: 'RICHTER_LOGLEVEL'.* RICHTER_LOG_LEVEL"
    ):
        resolve(folder=tmp_path)


def test_a_broken_line_in_dotenv_fails_without_telling_what_it_holds(tmp_path):
    (tmp_path / ".env").write_text("# ours\nMLFLOW_TRACKING_URI: 'https://me:secret@mlflow'\n")

    with pytest.raises(ConfigError, match=r"\.env has a line that is no NAME=value; see line 2$"):
        resolve(folder=tmp_path)


def test_a_password_is_neither_printed_nor_told_in_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush-hush")
    (tmp_path / "config.yaml").write_text("kafka_ssl_key_password: [hush-hush]\n")

    with pytest.raises(ConfigError) as raised:
        resolve(folder=tmp_path)
    code = main(["config"])

    assert code == 0
    assert resolve(environ=os.environ).settings.kafka_sasl_password == "hush-hush"
    told = capsys.readouterr().out
    assert "kafka_sasl_password" in told and "***" in told
    assert "hush" not in told + str(raised.value)


def test_variables_of_other_programs_are_left_alone():
    assert resolve(environ={"HOME": "/", "KAFKA_HEAP_OPTS": "-Xmx1g"}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stale_after_s", "abc"),
        ("stale_after_s", True),
        ("stale_after_s", 0.5),
        ("stale_after_s", 61),
        ("stale_after_s", float("nan")),
        ("rotate_mib", 0),
        ("rotate_mib", float("inf")),
        ("max_gb", -1),
        ("compress", 1),
        ("products", []),
        ("products", "BTC-USD"),
        ("products", ["btc usd"]),
        ("products", ["BTC-USD", "BTC-USD"]),
        ("price_decimals", 2),
        ("price_decimals", {"BTC-USD": 13}),
        ("price_decimals", {"BTC-USD": 2.5}),
        ("coinbase_ws_url", "https://example.com"),
        ("log_level", "loud"),
        ("data_dir", ""),
        ("data_dir", 3),
        ("alert_off", 1.5),
        ("alert_on", 0.5),
    ],
)
def test_a_wrong_value_fails_and_names_setting_value_expectation_and_source(tmp_path, name, value):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({name: value}))

    with pytest.raises(ConfigError) as raised:
        resolve(folder=tmp_path)

    assert str(raised.value).startswith(f"{name} (from {file}) is wrong: {value!r}; expected ")


@pytest.mark.parametrize(
    ("name", "value"), [("stale_after_s", 60), ("alert_off", 1), ("price_decimals", {"A-B": 12})]
)
def test_a_value_at_its_limit_passes(tmp_path, name, value):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({name: value}))

    assert getattr(resolve(folder=tmp_path).settings, name) == value


@pytest.mark.parametrize(
    ("content", "told"),
    [("a: [", "is not YAML: .*; see line 1"), ("- a", "is no list of `name: value` lines")],
)
def test_a_file_that_is_no_settings_file_fails(tmp_path, content, told):
    (tmp_path / "config.yaml").write_text(content)

    with pytest.raises(ConfigError, match=told):
        resolve(folder=tmp_path)


def test_a_file_of_comments_only_is_all_defaults(tmp_path):
    (tmp_path / "config.yaml").write_text("# nothing\n")

    assert resolve(folder=tmp_path).settings == Settings()


def test_every_setting_says_what_it_does_and_what_it_expects():
    for name in Settings.__struct_fields__:
        assert description(name).endswith(".")
        assert expectation(name)


def test_the_shipped_config_file_shows_every_setting_with_its_default(tmp_path):
    shipped = (ROOT / "config.yaml").read_text()
    lines = [
        line.removeprefix("# ") for line in shipped.splitlines() if line.partition(":")[0][2:] in VARIABLES
    ]
    (tmp_path / "config.yaml").write_text("\n".join(lines))

    resolved = resolve(folder=tmp_path)

    assert yaml.safe_load(shipped) is None
    assert resolved.settings == Settings()
    assert "default" not in resolved.sources.values()


def test_the_shipped_env_example_holds_known_variables_only(tmp_path):
    shipped = (ROOT / ".env.example").read_text()
    lines = [line.removeprefix("# ") for line in shipped.splitlines() if "=" in line]
    (tmp_path / ".env").write_text("\n".join(lines))

    resolved = resolve(folder=tmp_path)

    assert len(lines) == 9
    assert resolved.settings.products == ("BTC-USD", "ETH-USD")
