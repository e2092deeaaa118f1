"""Daily prices with volume: of two shares from matplotlib, or of any share from a CSV file."""

from __future__ import annotations

import csv
import math
from datetime import datetime
from pathlib import Path
from typing import Dict, List, NamedTuple

BUNDLED = {"GOOG": "goog.npz", "MSFT": "msft.csv"}
"""The symbols that matplotlib has, and the names of its files."""


class Day(NamedTuple):
    """One day of a share. Days are ordered by date."""

    date: str
    symbol: str
    price: float
    volume: int


def load(symbol: str, files: Dict[str, str]) -> List[Day]:
    """Returns the days of a symbol, the oldest first.

    Args:
        symbol: The symbol.
        files: CSV files by symbol. They come before matplotlib's.

    Raises:
        ValueError: The symbol is unknown, or its file is malformed.
        OSError: The file cannot be read.
        ImportError: There is no matplotlib.
    """
    if symbol in files:
        return from_csv(symbol, files[symbol])
    if symbol not in BUNDLED:
        known = ", ".join(sorted({*BUNDLED, *files}))
        raise ValueError(
            f"there are no prices of {symbol}; there are those of {known}, and -csv {symbol}=FILE brings others"
        )
    try:
        import matplotlib
        import numpy
    except ImportError as error:
        raise ImportError(
            f"{error}: the prices of {symbol} come with matplotlib; "
            "make install-examples, in the checkout, installs it, or give others by -csv"
        ) from None
    path = Path(matplotlib.get_data_path(), "sample_data", BUNDLED[symbol])
    if path.suffix == ".csv":
        return from_csv(symbol, str(path))
    with numpy.load(path) as file:
        rows = file["price_data"]
    return sorted(Day(str(row["date"]), symbol, float(row["close"]), int(row["volume"])) for row in rows)


def from_csv(symbol: str, path: str) -> List[Day]:
    """Returns the days in a CSV file with the columns Date, Close and Volume. Case and other columns do not matter."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in ("Date", "Close", "Volume") if name.lower() not in header]
            if missing:
                found = f"its first line is {','.join(header)!r}" if header else "it is empty"
                raise ValueError(f"{path} has no column {' and no column '.join(missing)}; {found}")
            days = []
            for row in reader:
                if row:
                    days.append(_day(symbol, dict(zip(header, row)), f"{path}, line {reader.line_num}"))
    except OSError as error:
        raise OSError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from None
    if not days:
        raise ValueError(f"{path} has no prices; below its first line there has to be one for each day")
    return sorted(days)


def _day(symbol: str, row: Dict[str, str], where: str) -> Day:
    price = _number(row.get("close", ""))
    if not price > 0:
        raise ValueError(f"{where}: Close is {row.get('close', '')!r}, but it must be a number above 0")
    volume = _number(row.get("volume", ""))
    if not 0 <= volume < 2**63:
        raise ValueError(
            f"{where}: Volume is {row.get('volume', '')!r}, but it must be a number, not negative, and below 2^63"
        )
    text = row.get("date", "").strip()
    for form, part in (("%Y-%m-%d", text[:10]), ("%d-%b-%y", text)):  # the first may have a time behind it
        try:
            return Day(datetime.strptime(part, form).date().isoformat(), symbol, price, int(volume))
        except ValueError:
            pass
    raise ValueError(f"{where}: Date is {text!r}, but it must be like 2003-09-19 or 19-Sep-03")


def _number(text: str) -> float:
    """Returns the number in a text, or NaN."""
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
