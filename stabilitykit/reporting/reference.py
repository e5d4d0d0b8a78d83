"""Where a value stands among networks measured before: the reference table that ships with the package."""

from __future__ import annotations

import csv
from pathlib import Path

PACKAGED = Path(__file__).with_name("reference.csv")
COLUMNS = ("network", "about", "dataset", "N", "readout", "space", "constant", "value", "kind", "unit")
