"""``logweir`` that speaks the format of lines.py, too: what a line in formats/__init__.py would add."""

from __future__ import annotations

import sys

from logweir import cli
from logweir_ingest import formats
from tests.ingest.formats.lines import LinesFormat

formats.FORMATS += (LinesFormat(),)

if __name__ == "__main__":
    sys.exit(cli.main())
