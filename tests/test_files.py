"""Small files and cells of tables."""

import pytest

from gazetell.files import spreadsheet_text


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_is_a_formula_in_a_spreadsheet(begin):
    assert spreadsheet_text(f"{begin}SUM(A1)") == f"'{begin}SUM(A1)"
    assert spreadsheet_text(f"a{begin}b") == f"a{begin}b"
    assert spreadsheet_text("") == ""
