"""Small files and cells of tables."""

import gzip
import lzma
import os

import pytest

from gazetell.errors import DataError, WriteError
from gazetell.files import (
    read_bytes,
    read_json,
    read_text,
    spreadsheet_name,
    spreadsheet_text,
    write_text,
)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_is_a_formula_in_a_spreadsheet(begin, caplog):
    assert spreadsheet_text(f"{begin}SUM(A1)") == f"'{begin}SUM(A1)"
    assert spreadsheet_text(f"a{begin}b") == f"a{begin}b"
    assert spreadsheet_text("") == ""
    assert caplog.messages == [
        "in CSV an apostrophe stands before a text that begins with =, +, - or @"
    ]
    assert spreadsheet_name(f"{begin}1.png") == f"./{begin}1.png"
    assert spreadsheet_name(f"a/{begin}1.png") == f"a/{begin}1.png"


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_files_are_read_and_damaged_ones_refused(tmp_path, pack):
    path = tmp_path / "a.json"
    path.write_bytes(pack(b'{"a": "\xc3\xa9"}'))
    assert read_json(path) == {"a": "é"}
    for content in (path.read_bytes()[:-9], path.read_bytes()[:12] + b"??????????"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.json: is a truncated or damaged (gzip|xz) file"):
            read_bytes(path)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_what_is_no_utf_8_is_named_by_its_line(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one" + end + b"two" + end)
    assert read_text(path) == "one\ntwo\n"
    path.write_bytes(b"one" + end + end + b"gr\xfcn")
    with pytest.raises(DataError, match=r"a\.txt:3: is not UTF-8 text"):
        read_text(path)


def test_a_file_takes_the_place_of_a_file_alone(tmp_path):
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    os.mkfifo(pipe)
    with pytest.raises(WriteError, match="pipe: is a device or pipe"):
        write_text(pipe, "a")
    assert pipe.is_fifo()
    link.symlink_to(file)
    write_text(link, "a")
    assert link.is_symlink()
    assert file.read_text() == "a"
