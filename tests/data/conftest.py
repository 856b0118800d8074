"""What the tests of all readers share."""

import re

import pytest

from gazetell.data.readers.rows import BadRow, BadRows
from gazetell.data.records import Dataset
from gazetell.errors import DataError


@pytest.fixture
def left_out():
    """Read a file with bad rows: they are an error that matches, or are left out on demand."""

    def read(message: str, reader, *files, **options) -> tuple[Dataset, list[BadRow]]:
        with pytest.raises(DataError) as caught:
            reader(*files, **options)
        assert re.search(message, str(caught.value))
        bad = BadRows(skip=True)
        dataset = reader(*files, **options, bad=bad)
        assert any(re.search(message, f"{row.where}: {row.reason}") for row in bad.rows)
        return dataset, bad.rows

    return read
