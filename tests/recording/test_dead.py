import base64
import os
from pathlib import Path

import msgspec
import pytest

from richter.adapters.recording.dead import DeadLetters


def letters_in(path):
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def test_the_file_is_made_at_the_first_letter(tmp_path):
    path = tmp_path / "dead" / "ticks.ndjson"

    with DeadLetters(path) as dead:
        before = path.exists()
        dead.add("late", b"{}", source="conn-1", line=7, ts=12)

    assert not before
    assert letters_in(path) == [
        {"reason": "late", "source": "conn-1", "line": 7, "ts": 12, "size": 2, "data": "{}"}
    ]


def test_bytes_that_are_no_text_are_kept_in_base64(tmp_path):
    path = tmp_path / "dead.ndjson"

    with DeadLetters(path) as dead:
        dead.add("torn", b"\xff\x00\n", source=Path("a.ndjson"))

    (letter,) = letters_in(path)
    assert base64.b64decode(letter["data_b64"]) == b"\xff\x00\n"
    assert "data" not in letter


def test_a_letter_with_line_breaks_stays_one_line(tmp_path):
    path = tmp_path / "dead.ndjson"

    with DeadLetters(path) as dead:
        dead.add("torn", b"a\nb", source="x")

    assert [letter["data"] for letter in letters_in(path)] == ["a\nb"]


def test_letters_are_counted_by_reason(tmp_path):
    dead = DeadLetters(tmp_path / "dead.ndjson")

    with dead:
        for reason in ("late", "duplicate", "late"):
            dead.add(reason, b"", source="x")

    assert dead.counts == {"late": 2, "duplicate": 1}
    assert dead.unwritten == 0


def test_a_long_letter_is_cut_and_its_size_told(tmp_path):
    path = tmp_path / "dead.ndjson"

    with DeadLetters(path, data_limit=4) as dead:
        dead.add("too_long", b"abcdefgh", source="x")

    (letter,) = letters_in(path)
    assert (letter["data"], letter["size"]) == ("abcd", 8)


def test_beyond_the_limit_letters_are_counted_only(tmp_path):
    path = tmp_path / "dead.ndjson"

    with DeadLetters(path, file_limit=1000) as dead:
        written = [dead.add("late", b"x" * 200, source="x") for _ in range(5)]

    assert written == [True, True, True, False, False]
    assert (dead.counts["late"], dead.unwritten) == (5, 2)
    assert path.stat().st_size <= 1000


def test_the_limit_counts_what_an_earlier_run_wrote(tmp_path):
    path = tmp_path / "dead.ndjson"
    with DeadLetters(path) as dead:
        dead.add("late", b"x" * 900, source="x")

    with DeadLetters(path, file_limit=1000) as dead:
        written = dead.add("late", b"x" * 200, source="x")

    assert not written


def test_a_letter_after_a_torn_one_is_on_its_own_line(tmp_path):
    path = tmp_path / "dead.ndjson"
    path.write_bytes(b'{"reason":"la')

    with DeadLetters(path) as dead:
        dead.add("late", b"{}", source="x")

    torn, whole = path.read_bytes().splitlines()
    assert torn == b'{"reason":"la'
    assert msgspec.json.decode(whole)["reason"] == "late"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_does_not_stop_the_run():
    dead = DeadLetters(Path("/dev/full"))

    with dead:
        written = dead.add("late", b"{}", source="x")

    assert not written
    assert (dead.counts["late"], dead.unwritten) == (1, 1)
    assert "No space left" in dead.last_error


def test_a_closed_file_is_opened_again_by_the_next_letter(tmp_path):
    path = tmp_path / "dead.ndjson"
    dead = DeadLetters(path)
    dead.add("late", b"1", source="x")
    dead.close()

    dead.add("late", b"2", source="x")

    dead.sync()
    dead.close()
    assert [letter["data"] for letter in letters_in(path)] == ["1", "2"]


def test_a_letter_that_was_written_in_part_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "dead.ndjson"
    dead = DeadLetters(path)
    dead.add("late", b"1", source="x")
    real = os.write

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:5]))
        written = dead.add("late", b"2", source="x")

    dead.close()
    assert not written
    assert [letter["data"] for letter in letters_in(path)] == ["1"]
