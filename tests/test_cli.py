import json
import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import structlog

import richter
from richter.cli import logs
from richter.cli.command import App, Command, setting, subcommand
from richter.cli.main import COMMANDS, main
from richter.cli.run import run
from richter.errors import ContractError, InputFileError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Neither settings files nor variables of the machine reach these tests."""
    monkeypatch.chdir(tmp_path)
    for variable in ("RICHTER_DEBUG", "RICHTER_CONFIG"):
        # Set first, so that what --debug sets is undone as well.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def failing(error):
    @click.command("fail")
    def fail():
        raise error

    return fail


def test_help_imports_nothing_heavy():
    heavy = {"numpy", "numba", "polars", "pyarrow", "rich", "structlog", "msgspec", "yaml"}
    code = "import sys; from richter.cli.main import main; main(['--help']); print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "config" in done.stdout
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_the_package_itself_imports_nothing():
    code = "import sys; before = set(sys.modules); import richter; print(*set(sys.modules) - before)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["richter"]


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"richter {richter.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_summary_examples_and_the_common_options(name, capsys):
    target, summary = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(import_module(module), attribute)

    code = main([name, "--help"])

    told = capsys.readouterr().out
    assert code == 0
    assert command.name == name
    assert command.get_short_help_str(1000) == summary
    assert command.examples
    assert all(f"richter {name}" in example for example in command.examples)
    assert all(example in told for example in command.examples)
    assert all(flag in told for flag in ("--data", "--json", "--config", "--log-format", "--log-level"))


def test_a_misspelt_command_is_told_the_right_one(capsys):
    code = main(["confg"])

    assert code == 2
    assert "Did you mean 'config'?" in capsys.readouterr().err


def test_config_prints_each_value_with_its_source(capsys, monkeypatch):
    monkeypatch.setenv("RICHTER_PRODUCTS", "BTC-USD,ETH-USD")

    code = main(["config", "--data", "elsewhere"])

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert [line.split("  ")[0] for line in lines[:2]] == ["setting", "data_dir"]
    assert lines[1].split() == ["data_dir", "elsewhere", "flag", "--data"]
    assert "BTC-USD, ETH-USD" in lines[2]
    assert lines[2].endswith("the environment, RICHTER_PRODUCTS")
    assert lines[3].split() == ["stale_after_s", "10", "default"]


def test_config_as_json_is_one_object(capsys):
    code = main(["config", "--json"])

    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert told["data_dir"] == {"value": "data", "source": "default"}
    assert told["max_gb"] == {"value": None, "source": "default"}


def test_config_hides_passwords(capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example")

    main(["config"])

    told = capsys.readouterr().out
    assert "https://***@mlflow.example" in told
    assert "secret" not in told


def test_a_config_file_is_named_by_flag_or_by_variable(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.yaml").write_text("stale_after_s: 5\n")

    main(["config", "--json", "--config", "mine.yaml"])
    by_flag = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("RICHTER_CONFIG", "mine.yaml")
    main(["config", "--json"])
    by_variable = json.loads(capsys.readouterr().out)

    assert by_flag["stale_after_s"] == {"value": 5.0, "source": "mine.yaml"}
    assert by_variable == by_flag


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(capsys, monkeypatch):
    monkeypatch.setenv("RICHTER_STALE_AFTER_S", "long")

    code = main(["config"])

    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert told.err == (
        "richter: stale_after_s (from the environment, RICHTER_STALE_AFTER_S) is wrong: 'long'; "
        "expected seconds from 1 to 60\n"
    )


def test_an_expected_error_is_one_sentence_without_a_traceback(capsys):
    code = run(failing(InputFileError("the recording has no ticks", "a.ndjson")), [])

    assert code == 1
    assert capsys.readouterr().err == "fail: the recording has no ticks: 'a.ndjson'\n"


def test_debug_shows_the_traceback_of_an_expected_error(capsys, monkeypatch):
    monkeypatch.setenv("RICHTER_STALE_AFTER_S", "long")

    code = main(["config", "--debug"])

    told = capsys.readouterr().err
    assert code == 2
    assert "Traceback (most recent call last)" in told
    assert told.endswith("expected seconds from 1 to 60\n")


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), ContractError("by zero")])
def test_what_was_not_expected_is_our_fault_and_leaves_its_traceback_in_a_file(error, tmp_path, capsys):
    code = run(failing(error), [])

    told = capsys.readouterr().err
    (file,) = tmp_path.glob("richter-traceback-*.txt")
    assert code == 70
    assert told == (
        f"fail: internal error, our fault: {type(error).__name__}: by zero; "
        f"please report it with the traceback in {file}\n"
    )
    assert "Traceback" in file.read_text()


def test_an_interrupt_exits_with_130(capsys):
    code = run(failing(KeyboardInterrupt()), [])

    assert code == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["config"], ["config", "--json"]])
def test_a_reader_that_goes_away_causes_no_noise(arguments):
    code = (
        f"import sys, time; time.sleep(0.1); from richter.cli.main import main; sys.exit(main({arguments}))"
    )

    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        noise = process.stderr.read()

    assert noise == b""
    assert process.returncode == 1


def test_a_command_gets_its_settings_from_flags_and_answers_once(capsys):
    @subcommand("probe", examples=("richter probe",), configure_logs=False)
    @setting("--pair", "products", multiple=True)
    @setting("--stale-after", "stale_after_s")
    @click.option("--out", type=click.Path(path_type=Path))
    def probe(app: App, out: Path) -> None:
        """Probe."""
        data = {
            "products": app.settings.products,
            "stale": app.settings.stale_after_s,
            "out": out,
            "x": float("nan"),
        }
        app.emit(data, lambda: click.echo("for people"))

    arguments = ["--pair", "BTC-USD", "--pair", "ETH-USD", "--stale-after", "5", "--out", "f"]

    run(probe, arguments)
    for_people = capsys.readouterr().out
    run(probe, [*arguments, "--json"])
    for_programs = json.loads(capsys.readouterr().out)

    assert isinstance(probe, Command)
    assert for_people == "for people\n"
    assert for_programs == {"products": ["BTC-USD", "ETH-USD"], "stale": 5.0, "out": "f", "x": None}


@pytest.fixture
def fresh_logging():
    before = logging.root.handlers[:], logging.root.level
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = before


def test_log_lines_are_json_on_standard_error_away_from_a_terminal(capsys, fresh_logging):
    logs.configure("auto", "info")

    structlog.get_logger("ours").info("started", port=1)
    logging.getLogger("theirs").warning("odd %s", "thing")
    structlog.get_logger("ours").debug("too much")

    told = capsys.readouterr()
    ours, theirs = (json.loads(line) for line in told.err.splitlines())
    assert told.out == ""
    assert (ours["event"], ours["port"], ours["level"], ours["logger"]) == ("started", 1, "info", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("odd thing", "warning", "theirs")
    assert ours["timestamp"].endswith("Z")


def test_human_log_lines_are_no_json_and_tell_exceptions(capsys, fresh_logging):
    logs.configure("human", "info")

    try:
        raise ValueError("because")
    except ValueError:
        structlog.get_logger().exception("failed")

    told = capsys.readouterr().err
    assert "failed" in told
    assert "because" in told
    assert not told.startswith("{")


def test_exceptions_are_in_the_json_line(capsys, fresh_logging):
    logs.configure("json", "info")

    try:
        raise ValueError("because")
    except ValueError:
        structlog.get_logger().exception("failed")

    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: because" in json.loads(line)["exception"]
