"""The worker of the stock-analysis example. Run it by hand to see its commands."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from typing import Any, Dict, Generator, List, Optional

import prices
from indicators import MACD, RSI, SMA
from snakepit_bridge import Worker

worker = Worker()

INDICATORS = ["RSI", "MACD", "SMA_20", "SMA_50"]
THRESHOLDS = {"rsi_oversold": 30.0, "rsi_overbought": 70.0, "volume_spike": 2.0}


@worker.command
def open_market(symbols: List[str], files: Optional[Dict[str, str]] = None) -> List[Dict[str, Any]]:
    """Reads the prices of all symbols, so that an error comes before the first day is shown.

    Args:
        symbols: The shares.
        files: CSV files by symbol; see prices.py.

    Returns:
        For each symbol, the number of days, the first day and the last.
    """
    market = [prices.load(symbol, files or {}) for symbol in symbols]
    return [
        {"symbol": days[0].symbol, "days": len(days), "first": days[0].date, "last": days[-1].date} for days in market
    ]


@worker.command
def realtime_stock_analysis(
    symbols: List[str],
    indicators: List[str],
    alert_thresholds: Dict[str, float],
    files: Optional[Dict[str, str]] = None,
    speed: float = 0.0,
) -> Generator[Dict[str, Any], None, Dict[str, Any]]:
    """Replays daily prices in the order of their dates, with technical analysis.

    Args:
        symbols: The shares.
        indicators: Which of RSI, MACD, SMA_20 and SMA_50 to report. The trading signal uses the RSI in any case.
        alert_thresholds: rsi_oversold (30), rsi_overbought (70) and volume_spike (2.0), the volume by the mean of the
            20 days before.
        files: CSV files by symbol; see prices.py.
        speed: The number of days per second; 0 means as fast as possible.

    Yields:
        A chunk for each day of each share: its date, symbol, price, volume, rsi, macd, macd_signal, sma_20, sma_50,
        trading_signal and alerts. An indicator is None while there are too few prices for it.

    Returns:
        is_final, and for each symbol the number of days with each trading signal, and of days with alerts.
    """
    unknown = [name for name in indicators if name not in INDICATORS]
    if unknown:
        raise ValueError(f"unknown indicator {unknown[0]!r}; there are {', '.join(INDICATORS)}")
    foreign = [name for name in alert_thresholds if name not in THRESHOLDS]
    if foreign:
        raise ValueError(f"unknown threshold {foreign[0]!r}; there are {', '.join(THRESHOLDS)}")
    if not speed >= 0:
        raise ValueError(f"speed is {speed}, but it must be at least 0")
    shares = {symbol: Share(indicators, {**THRESHOLDS, **alert_thresholds}) for symbol in symbols}
    began, passed, today = time.monotonic(), 0, ""
    for day in heapq.merge(*(prices.load(symbol, files or {}) for symbol in symbols)):
        if speed and day.date != today:
            time.sleep(max(0.0, began + passed / speed - time.monotonic()))
            passed, today = passed + 1, day.date
        yield shares[day.symbol].update(day)
    return {
        "is_final": True,
        "symbols": {symbol: {"signals": share.signals, "alerts": share.alerts} for symbol, share in shares.items()},
    }


class Share:
    """The analysis of one share.

    Args:
        indicators: Which to report.
        thresholds: All of `THRESHOLDS`.
    """

    def __init__(self, indicators: List[str], thresholds: Dict[str, float]) -> None:
        self.signals: Counter[str] = Counter()
        self.alerts = 0
        self._indicators = indicators
        self._thresholds = thresholds
        self._rsi, self._macd, self._sma_20, self._sma_50 = RSI(14), MACD(12, 26, 9), SMA(20), SMA(50)
        self._volume = SMA(20)
        self._usual: Optional[float] = None  # the mean volume of the 20 days before

    def update(self, day: prices.Day) -> Dict[str, Any]:
        """Takes the next day and returns its chunk."""
        rsi = self._rsi.update(day.price)
        macd, macd_signal = self._macd.update(day.price)
        values = {
            "rsi": rsi if "RSI" in self._indicators else None,
            "macd": macd if "MACD" in self._indicators else None,
            "macd_signal": macd_signal if "MACD" in self._indicators else None,
            "sma_20": self._sma_20.update(day.price) if "SMA_20" in self._indicators else None,
            "sma_50": self._sma_50.update(day.price) if "SMA_50" in self._indicators else None,
        }
        signal, alerts = "HOLD", []
        low, high, spike = (self._thresholds[name] for name in THRESHOLDS)
        if rsi is not None and rsi < low:
            signal = "BUY"
            alerts.append(f"RSI {rsi:.1f} is below {low:g}")
        elif rsi is not None and rsi > high:
            signal = "SELL"
            alerts.append(f"RSI {rsi:.1f} is above {high:g}")
        if self._usual and day.volume >= spike * self._usual:
            alerts.append(f"volume is {day.volume / self._usual:.1f} times the mean of 20 days")
        self._usual = self._volume.update(day.volume)
        self.signals[signal] += 1
        self.alerts += bool(alerts)
        return {**day._asdict(), **values, "trading_signal": signal, "alerts": alerts}


if __name__ == "__main__":
    worker.run()
