"""Writes made-up sales of any size, for measuring: python3 sales_csv.py 1GB sales.csv

Fields have commas, quotes, line breaks and stray blanks. One row in 5,000 is malformed. The same size gives the same
file.
"""

from __future__ import annotations

import random
import re
import sys
from datetime import date, timedelta
from typing import Iterator

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
REGIONS = ("North", "South", "East", "West", " Central")
PRODUCTS = tuple(
    f"{make} {thing}"
    for make in ("Oak", "Steel", "Blue", "Caf\u00e9", "Cafe\u0301")
    for thing in ("chair", "table", "desk, small")
)
NOTES = ("", "", "", "", " ", '"said ""soon"""', '"two\nlines"')


def rows() -> Iterator[str]:
    """Yields the lines of one order after the other, without end."""
    chance = random.Random(1)
    number, day = 0, date(2015, 1, 1)
    while True:
        day += timedelta(days=1)
        for _ in range(5000):
            number += 1
            product, price, discount = (
                chance.choice(PRODUCTS),
                chance.randrange(100, 100_000) / 100,
                chance.choice(("", "0.05", "0.1")),
            )
            customer, quantity = chance.randrange(50_000), chance.randrange(1, 20)
            extra = ",one too many" if number % 5000 == 2500 else ""
            yield (
                f'{number},{day},{chance.choice(REGIONS)},"{product}",{quantity},{price:.2f},{discount},'
                f"customer {customer},c{customer}@example.org,{chance.choice(NOTES)}{extra}\n"
            )


def main() -> None:
    """Writes the file that the command line names."""
    size = re.fullmatch(r"(\d+)([KMG]B|)", sys.argv[1]) if len(sys.argv) == 3 else None
    if not size:
        said = (
            f"{sys.argv[1]!r} is no size; write it like 100MB or 1GB"
            if len(sys.argv) == 3
            else "say a size and a file: 1GB sales.csv"
        )
        sys.exit(complain(said))
    left = int(size[1]) * UNITS[size[2]]
    with open(sys.argv[2], "w", encoding="utf-8", newline="") as file:
        left -= file.write("order_id,date,region,product,quantity,unit_price,discount,customer,email,note\n")
        for row in rows():
            if left <= 0:
                return
            file.write(row)
            left -= len(row.encode())


def complain(said: str) -> int:
    """Prints an error on stderr and returns the exit code."""
    print(f"sales_csv.py: {said}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
