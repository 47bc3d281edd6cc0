"""The note of what is published survives: it is the old one or the new one, and it is on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from richter.adapters.recording.published import Published, load_published, save_published
from richter.adapters.recording.segments import Position, SegmentName
from richter.errors import DataFolderError

SEGMENT = "ticks_BTCUSD_20260202_024000.ndjson"
OLD = Published("ticks.raw", "cluster", {"BTC-USD": Position(SEGMENT, 100), "ETH-USD": None})
NEW = Published("ticks.raw", "cluster", {"BTC-USD": Position(SEGMENT, 200), "ETH-USD": None})
POSITIONS = st.builds(
    lambda second, offset: Position(str(SegmentName("BTCUSD", second)), offset),
    st.integers(0, 4 * 10**9),
    st.integers(0, 2**62),
)


@settings(deadline=None)  # A sync takes as long as the disk wants.
@given(st.text(), st.text(), st.dictionaries(st.text(), st.none() | POSITIONS))
def test_it_is_read_as_it_was_written(tmp_path_factory, topic, cluster, positions):
    folder = tmp_path_factory.mktemp("raw")

    save_published(folder, Published(topic, cluster, positions))

    assert load_published(folder) == Published(topic, cluster, positions)


def test_there_is_none_before_the_first(tmp_path):
    assert load_published(tmp_path / "raw") is None


def test_its_bytes_are_on_the_disk_before_its_name_and_then_its_name(tmp_path, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append("bytes"), fsync(fd)))
    monkeypatch.setattr(
        "richter.adapters.recording.published.sync_folder", lambda folder: done.append("folder")
    )
    monkeypatch.setattr(Path, "replace", lambda self, to: (done.append("name"), replace(self, to))[1])

    save_published(tmp_path, OLD)

    assert done == ["bytes", "name", "folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_one(tmp_path, monkeypatch, step):
    save_published(tmp_path, OLD)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), refuse)
        with pytest.raises(DataFolderError, match=r"cannot be written \(No space left on device\)") as caught:
            save_published(tmp_path, NEW)

    assert load_published(tmp_path) == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["published.json"]
    assert str(tmp_path / "published.json") in str(caught.value)


def test_what_a_crash_left_is_written_over(tmp_path):
    save_published(tmp_path, OLD)
    (tmp_path / ".published.json.tmp").write_bytes(b'{"topic":"ti')

    found = load_published(tmp_path)
    save_published(tmp_path, NEW)

    assert (found, load_published(tmp_path)) == (OLD, NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["published.json"]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "raw").write_bytes(b"")

    with pytest.raises(DataFolderError, match="cannot be written"):
        save_published(tmp_path / "raw", OLD)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"topic":"ticks.raw","clus',
        b'{"topic":"ticks.raw","cluster":"c"}',
        b'{"topic":"ticks.raw","cluster":"c","positions":{},"v":2}',
        b'{"topic":"t","cluster":"c","positions":{"BTC-USD":{"segment":"","offset":0}}}',
        b'{"topic":"t","cluster":"c","positions":{"BTC-USD":{"segment":"../x","offset":0}}}',
        b'{"topic":"t","cluster":"c","positions":{"BTC-USD":{"segment":"%b.zst","offset":0}}}'
        % SEGMENT.encode(),
        b'{"topic":"t","cluster":"c","positions":{"BTC-USD":{"segment":"%b","offset":-1}}}'
        % SEGMENT.encode(),
    ],
)
def test_what_is_no_note_is_one_sentence_with_the_cure(tmp_path, content):
    (tmp_path / "published.json").write_bytes(content)

    with pytest.raises(DataFolderError) as caught:
        load_published(tmp_path)

    told = str(caught.value)
    assert "the note of what is published cannot be read" in told
    assert str(tmp_path / "published.json") in told
    assert told.endswith("delete it: what was recorded until then counts as published")
    assert "\n" not in told
