import os

import pytest

from richter.adapters.recording.reader import expand
from richter.errors import InputFileError


@pytest.fixture
def files(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"{}\n")
        return tmp_path

    return make


def names(paths):
    return [path.name for path in paths]


def test_a_glob_gives_files_in_order_of_name(files):
    folder = files("b.ndjson", "c.ndjson", "a.ndjson", "a.csv")

    found = expand([f"{folder}/*.ndjson"])

    assert names(found) == ["a.ndjson", "b.ndjson", "c.ndjson"]


def test_patterns_keep_their_order_and_sort_within(files):
    folder = files("a1.ndjson", "a2.ndjson", "b1.ndjson", "b2.ndjson")

    found = expand([f"{folder}/b*.ndjson", folder / "a2.ndjson", f"{folder}/a*.ndjson"])

    assert names(found) == ["b1.ndjson", "b2.ndjson", "a2.ndjson", "a1.ndjson"]


def test_a_glob_for_ndjson_finds_the_compressed_ones_in_their_place(files):
    folder = files("a.ndjson", "b.ndjson.zst", "c.ndjson")

    found = expand([f"{folder}/*.ndjson"])

    assert names(found) == ["a.ndjson", "b.ndjson.zst", "c.ndjson"]


@pytest.mark.parametrize("pattern", ["*.ndjson", "*", "*.ndjson*", ""])
def test_never_both_forms_of_one_segment_and_the_plain_one_wins(files, pattern):
    folder = files("a.ndjson", "a.ndjson.zst", "b.ndjson.zst")

    found = expand([f"{folder}/{pattern}"])

    assert names(found) == ["a.ndjson", "b.ndjson.zst"]


def test_two_patterns_never_give_both_forms(files):
    folder = files("a.ndjson", "a.ndjson.zst", "b.ndjson")

    found = expand([f"{folder}/*.zst", f"{folder}/*.ndjson"])

    assert names(found) == ["a.ndjson", "b.ndjson"]


def test_a_pattern_for_zst_alone_finds_zst(files):
    folder = files("a.ndjson.zst", "b.ndjson")

    found = expand([f"{folder}/*.zst"])

    assert names(found) == ["a.ndjson.zst"]


def test_a_plain_name_finds_its_compressed_form(files):
    folder = files("a.ndjson.zst")

    found = expand([folder / "a.ndjson"])

    assert names(found) == ["a.ndjson.zst"]


def test_a_folder_stands_for_its_recordings(files):
    folder = files("a.ndjson", "b.jsonl", "c.ndjson.zst", "d.csv", "a.ndjson.manifest.json", ".e.ndjson")

    found = expand([folder])

    assert names(found) == ["a.ndjson", "b.jsonl", "c.ndjson.zst"]


def test_manifests_and_dot_names_are_never_data(files):
    folder = files("a.ndjson", "a.ndjson.manifest.json", ".a.ndjson.zst.tmp")

    found = expand([f"{folder}/*"])

    assert names(found) == ["a.ndjson"]


def test_a_file_named_twice_comes_once_also_by_a_link(files):
    folder = files("a.ndjson", "b.ndjson")
    (folder / "c.ndjson").symlink_to(folder / "a.ndjson")

    found = expand([f"{folder}/*.ndjson", folder / "b.ndjson", folder / "." / "a.ndjson"])

    assert names(found) == ["a.ndjson", "b.ndjson"]


def test_a_file_whose_name_holds_a_bracket_is_found(files):
    folder = files("a[1].ndjson", "x[2]/b.ndjson")

    found = expand([folder / "a[1].ndjson", folder / "x[2]"])

    assert names(found) == ["a[1].ndjson", "b.ndjson"]


def test_two_stars_go_into_folders(files):
    folder = files("x/a.ndjson", "x/y/b.ndjson")

    found = expand([f"{folder}/**/*.ndjson"])

    assert names(found) == ["a.ndjson", "b.ndjson"]


def test_a_tilde_is_the_home_folder(files, monkeypatch):
    folder = files("a.ndjson")
    monkeypatch.setenv("HOME", str(folder))

    found = expand(["~/*.ndjson"])

    assert names(found) == ["a.ndjson"]


def test_a_pattern_relative_to_the_current_folder_works(files, monkeypatch):
    monkeypatch.chdir(files("data/raw/a.ndjson"))

    found = expand(["data/raw/*.ndjson"])

    assert [os.fspath(path) for path in found] == ["data/raw/a.ndjson"]


@pytest.mark.parametrize(
    ("pattern", "looked"),
    [
        ("raw/*.json", "raw, which holds a.ndjson, b.ndjson, c.ndjson, d.ndjson, e.ndjson and 1 more"),
        ("absent/deeper/*.ndjson", ", which holds empty/, raw/"),
        ("absent*/x.ndjson", ", which holds empty/, raw/"),
        ("empty/*.ndjson", "empty, which is empty"),
        ("empty", "empty, which is empty"),
    ],
)
def test_nothing_found_says_which_pattern_where_it_looked_and_what_is_there(files, pattern, looked):
    folder = files(*(f"raw/{letter}.ndjson" for letter in "abcdef"))
    (folder / "empty").mkdir()

    with pytest.raises(InputFileError) as caught:
        expand([folder / "raw", f"{folder}/{pattern}"])

    assert caught.value.value == f"{folder}/{pattern}"
    assert caught.value.fix.startswith(f"looked in {folder}")
    assert caught.value.fix.endswith(looked)
