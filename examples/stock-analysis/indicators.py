"""Technical indicators as streams: each takes one price after another, in constant time and memory.

They agree with TA-Lib, value by value. A test checks that. None means that there have not been enough prices yet.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Optional, Tuple


class SMA:
    """The simple moving average: the mean of the last values.

    Args:
        period: How many values.
    """

    def __init__(self, period: int) -> None:
        self._values: Deque[float] = deque(maxlen=period)
        self._sum = 0.0

    def update(self, value: float) -> Optional[float]:
        """Takes the next value and returns the mean, once there are enough."""
        values = self._values
        if len(values) == values.maxlen:
            self._sum -= values[0]  # which append drops
        values.append(value)
        self._sum += value
        return self._sum / len(values) if len(values) == values.maxlen else None


class EMA:
    """The exponential moving average.

    It begins with the mean of the first values. Then each new value has the weight 2 / (period + 1).

    Args:
        period: How many values it begins with.
    """

    def __init__(self, period: int) -> None:
        self._weight = 2 / (period + 1)
        self._begin = SMA(period)
        self._mean: Optional[float] = None

    def update(self, value: float) -> Optional[float]:
        """Takes the next value and returns the average, once there are enough."""
        if self._mean is None:
            self._mean = self._begin.update(value)
        else:
            self._mean += self._weight * (value - self._mean)
        return self._mean


class RSI:
    """Wilder's relative strength index: 100 * gains / (gains + losses).

    Both are averages of the changes, smoothed by his 1 / period. If no price has changed, the index is 50. TA-Lib
    returns 0, which would mean that the price has only fallen.

    Args:
        period: How many changes the averages begin with.
    """

    def __init__(self, period: int = 14) -> None:
        self._period = period
        self._changes = 0
        self._last: Optional[float] = None
        self._gain = self._loss = 0.0

    def update(self, price: float) -> Optional[float]:
        """Takes the next price and returns the index, from 0 to 100, once there are enough."""
        last, self._last = self._last, price
        if last is None:
            return None
        self._changes += 1
        count = min(self._changes, self._period)  # until there are period changes it is their plain mean
        self._gain += (max(price - last, 0.0) - self._gain) / count
        self._loss += (max(last - price, 0.0) - self._loss) / count
        if self._changes < self._period:
            return None
        total = self._gain + self._loss
        return 100 * self._gain / total if total > 1e-14 else 50.0


class MACD:
    """Moving average convergence and divergence: a fast EMA minus a slow one, and the signal, an EMA of the difference.

    Args:
        fast: The period of the fast EMA. Its first value is the mean of the prices up to the slow one's first, as in
            TA-Lib.
        slow: The period of the slow one.
        signal: The period of the signal.
    """

    def __init__(self, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        self._skip = slow - fast
        self._fast, self._slow, self._signal = EMA(fast), EMA(slow), EMA(signal)

    def update(self, price: float) -> Tuple[Optional[float], Optional[float]]:
        """Takes the next price and returns the difference and its signal, each once there are enough."""
        slow = self._slow.update(price)
        if self._skip:
            self._skip -= 1
            return None, None
        fast = self._fast.update(price)
        if fast is None or slow is None:
            return None, None
        return fast - slow, self._signal.update(fast - slow)
