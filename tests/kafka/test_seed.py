"""The course's commands of the streaming part, word for word; only the minutes and the addresses differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.tools import has_kafka
from tests.live_tools import exchange
from tests.seed import CHECK, FEATURIZE, REPLAY, broker, history, type_the_seed


def test_the_courses_commands_do_what_the_course_says(tmp_path: Path) -> None:
    has_kafka()
    minutes = 0.2
    with (
        broker(tmp_path / "kafka", 0) as servers,
        exchange("--product", "BTC-USD", "--seed", "7", *history(minutes)) as url,
    ):
        rows = type_the_seed(tmp_path / "project", servers, url, minutes)

    told = {command: said for command, _, said in rows}
    assert "messages in ticks.raw (at least 100 wanted)" in told[CHECK]
    assert "rows written" in told[FEATURIZE]
    assert "✓ Reproducibility verified" in told[REPLAY]


def test_a_command_that_says_something_else_is_told(tmp_path: Path) -> None:
    from tests.seed import Typing

    typing = Typing(tmp_path, 0.2, Path("/nowhere"), lambda text: None)

    with pytest.raises(AssertionError, match="exit code 3"):
        typing.type("exit 3", ".*")
    with pytest.raises(AssertionError, match="no '✓' in"):
        typing.type("echo no", "✓")
    assert "--minutes 0.2 " in typing.start("echo --minutes 15 x").communicate()[0]
