"""Tests of the worker without a host: its indicators against TA-Lib, its prices, and its commands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy
import prices
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st
from indicators import MACD, RSI, SMA
from snakepit_bridge import RemoteError, testing

HERE = Path(__file__).parent


def same(ours: List[Optional[float]], theirs: Any, scale: float) -> None:
    """Fails unless ours are theirs, within what rounding can do to sums of that scale."""
    assert len(ours) == len(theirs)
    for n, (our, their) in enumerate(zip(ours, theirs)):
        if our is None:
            assert math.isnan(their), n
        else:
            assert our == pytest.approx(their, rel=1e-9, abs=1e-9 * scale), n


def check(closes: List[float]) -> None:
    """Compares each indicator with TA-Lib's."""
    real, scale = numpy.array(closes), max(closes)
    for period in (2, 20, 50):
        sma = SMA(period)
        same([sma.update(price) for price in closes], talib.SMA(real, period), scale)

    rsi = RSI(14)
    ours = [rsi.update(price) for price in closes]
    for n, (our, their) in enumerate(zip(ours, talib.RSI(real, 14))):
        if our is not None and len(set(closes[: n + 1])) == 1:
            assert (our, their) == (50, 0)
        else:
            assert math.isnan(their) if our is None else our == pytest.approx(their, rel=1e-6, abs=1e-6), n

    macd = MACD(12, 26, 9)
    pairs = [macd.update(price) for price in closes]
    lines, signals, _ = talib.MACD(real, 12, 26, 9)
    same([signal for _, signal in pairs], signals, scale)
    same([line if signal is not None else None for line, signal in pairs], lines, scale)
    # TA-Lib keeps them until there is a signal.
    assert [line is not None for line, _ in pairs] == [n >= 25 for n in range(len(closes))]


@pytest.mark.parametrize(("symbol", "days"), [("GOOG", 1047), ("MSFT", 65)])
def test_real_prices(symbol: str, days: int) -> None:
    closes = [day.price for day in prices.load(symbol, {})]
    assert len(closes) == days
    check(closes)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 1_000_000).map(lambda cents: cents / 100), min_size=2, max_size=150))
def test_any_prices(closes: List[float]) -> None:
    check(closes)


@settings(deadline=None, max_examples=30)
@given(st.floats(1, 1000), st.lists(st.floats(-0.05, 0.05), min_size=60, max_size=300))
def test_prices_that_walk(price: float, changes: List[float]) -> None:
    closes = []
    for change in changes:
        price *= 1 + change
        closes.append(price)
    check(closes)


def test_bundled_prices() -> None:
    goog, msft = prices.load("GOOG", {}), prices.load("MSFT", {})
    assert goog[0] == prices.Day("2004-08-19", "GOOG", 100.34, 22351900)
    assert (msft[0].date, msft[-1]) == ("2003-06-19", prices.Day("2003-09-19", "MSFT", 29.96, 92433800))
    for days in goog, msft:
        assert [day.date for day in days] == sorted({day.date for day in days})


def test_a_csv_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        '\ufeffvolume, CLOSE ,date\n"1,000",2.5,2024-01-03\n\n7,2,2024-01-02 00:00:00-05:00\n0,3,4-Jan-24\n',
        encoding="utf-8",
    )
    assert prices.load("OWN", {"OWN": str(path)}) == [
        prices.Day("2024-01-02", "OWN", 2.0, 7),
        prices.Day("2024-01-03", "OWN", 2.5, 1000),
        prices.Day("2024-01-04", "OWN", 3.0, 0),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "FILE has no column Date and no column Close and no column Volume; it is empty"),
        (b"Date,Open,Volume\n", "FILE has no column Close; its first line is 'date,open,volume'"),
        (b"Date,Close,Volume\n", "FILE has no prices; below its first line there has to be one for each day"),
        (b"Date,Close,Volume\n2024-01-02,null,1\n", "FILE, line 2: Close is 'null', but it must be a number above 0"),
        (b"Date,Close,Volume\n2024-01-02,-1,1\n", "FILE, line 2: Close is '-1', but it must be a number above 0"),
        (b"Date,Close,Volume\n2024-01-02,inf,1\n", "FILE, line 2: Close is 'inf', but it must be a number above 0"),
        (
            b"Date,Close,Volume\n2024-01-02,1\n",
            "FILE, line 2: Volume is '', but it must be a number, not negative, and below 2^63",
        ),
        (
            b"Date,Close,Volume\n2024-01-02,1,1e30\n",
            "FILE, line 2: Volume is '1e30', but it must be a number, not negative, and below 2^63",
        ),
        (
            b"Date,Close,Volume\n02.01.2024,1,1\n",
            "FILE, line 2: Date is '02.01.2024', but it must be like 2003-09-19 or 19-Sep-03",
        ),
        (
            b"Date,Close,Volume\n\xff\n",
            "FILE is not a CSV file in UTF-8: 'utf-8' codec can't decode byte 0xff in position 18: invalid start byte",
        ),
    ],
)
def test_a_wrong_csv_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r".") as error:
        prices.load("OWN", {"OWN": str(path)})
    assert str(error.value).replace(str(path), "FILE") == message


def rows(closes: List[float], volumes: List[int]) -> str:
    return "Date,Close,Volume\n" + "".join(
        f"2024-01-{n:02},{close},{volume}\n" for n, (close, volume) in enumerate(zip(closes, volumes), 1)
    )


def test_signals_and_alerts(tmp_path: Path) -> None:
    falling, rising = tmp_path / "falling.csv", tmp_path / "rising.csv"
    falling.write_text(rows([100.0 - n for n in range(22)], [10] * 20 + [20, 19]))
    rising.write_text(rows([100.0 + n for n in range(22)], [10] * 22))
    files = {"DOWN": str(falling), "UP": str(rising)}
    arguments: Dict[str, Any] = {
        "symbols": ["DOWN", "UP"],
        "indicators": ["RSI"],
        "alert_thresholds": {"volume_spike": 2},
        "files": files,
    }
    with testing.load(HERE / "worker.py") as worker:
        assert worker.call("open_market", symbols=["UP"], files=files) == [
            {"symbol": "UP", "days": 22, "first": "2024-01-01", "last": "2024-01-22"}
        ]
        stream = worker.stream("realtime_stock_analysis", **arguments)
        chunks = list(stream)
    assert [(chunk["date"], chunk["symbol"]) for chunk in chunks[:3]] == [
        ("2024-01-01", "DOWN"),
        ("2024-01-01", "UP"),
        ("2024-01-02", "DOWN"),
    ]
    down, up = chunks[0::2], chunks[1::2]
    assert [chunk["trading_signal"] for chunk in down] == ["HOLD"] * 14 + ["BUY"] * 8
    assert [chunk["trading_signal"] for chunk in up] == ["HOLD"] * 14 + ["SELL"] * 8
    assert (down[13]["rsi"], down[14]["rsi"], up[14]["rsi"], up[14]["sma_20"], up[21]["sma_20"]) == (
        None,
        0,
        100,
        None,
        None,
    )
    assert down[20]["alerts"] == ["RSI 0.0 is below 30", "volume is 2.0 times the mean of 20 days"]
    assert down[21]["alerts"] == ["RSI 0.0 is below 30"]  # 19 is less than twice 10.5
    assert stream.result == {
        "is_final": True,
        "symbols": {
            "DOWN": {"signals": {"HOLD": 14, "BUY": 8}, "alerts": 8},
            "UP": {"signals": {"HOLD": 14, "SELL": 8}, "alerts": 8},
        },
    }


def test_indicators_that_are_not_asked_for() -> None:
    with testing.load(HERE / "worker.py") as worker:
        for names in (["SMA_50", "MACD"], ["RSI", "SMA_20"]):
            *_, last = worker.stream("realtime_stock_analysis", symbols=["MSFT"], indicators=names, alert_thresholds={})
            there = {key for key in ("rsi", "macd", "macd_signal", "sma_20", "sma_50") if last[key] is not None}
            assert there == ({"macd", "macd_signal", "sma_50"} if "MACD" in names else {"rsi", "sma_20"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"symbols": ["TSLA"]},
            "there are no prices of TSLA; there are those of GOOG, MSFT, and -csv TSLA=FILE brings others",
        ),
        ({"symbols": ["X"], "files": {"X": "nowhere.csv"}}, r"nowhere\.csv cannot be read: No such file or directory"),
        ({"indicators": ["EMA"]}, "unknown indicator 'EMA'; there are RSI, MACD, SMA_20, SMA_50"),
        (
            {"alert_thresholds": {"rsi": 1}},
            "unknown threshold 'rsi'; there are rsi_oversold, rsi_overbought, volume_spike",
        ),
        ({"speed": -1}, "speed is -1.*, but it must be at least 0"),
    ],
)
def test_bad_arguments(arguments: Dict[str, Any], message: str) -> None:
    with testing.load(HERE / "worker.py") as worker, pytest.raises(RemoteError, match=rf"Error: {message}$"):
        list(
            worker.stream(
                "realtime_stock_analysis",
                **{"symbols": ["MSFT"], "indicators": [], "alert_thresholds": {}, **arguments},
            )
        )
