"""The frames that answer a call: its items, its result, or its error."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Union

from ._calls import Call
from ._codec import Parts
from ._description import describe, encode_error
from ._errors import (
    BAD_ARGUMENTS,
    BAD_RESULT,
    CANCELLED,
    TOO_LARGE,
    BadValue,
    Cancelled,
    ItemError,
    simple_error,
    type_name,
)
from ._frames import BASE_WEIGHT, END, ERROR, FAILED, ITEM, NOT_STARTED, STATE, Frame
from ._memory import LARGE
from ._terms import Terms


class Refused(Exception):
    """A call fails with a type of error that the protocol defines.

    Attributes:
        error_type: The type of the error.
        flags: The flags of the error frame.
    """

    error_type = ""
    flags = 0


class BadArguments(Refused):
    """The arguments can't be decoded, or they do not fit the handler. It did not run.

    If code of the program refused an argument, its exception is the cause.
    """

    error_type = BAD_ARGUMENTS
    flags = NOT_STARTED


class BadResult(Refused):
    """A result or an item can't be encoded."""

    error_type = BAD_RESULT


class TooLarge(Refused):
    """The frame of a result or an item exceeds the limit."""

    error_type = TOO_LARGE


def too_large(what: str, size: int, limit: int) -> str:
    """Returns the message for a frame above the limit. Sizes are in bytes."""
    return (
        f"a frame with {what} has {size} bytes, and the limit is {limit}; "
        "raise Options.MaxFrame, or send it in smaller items"
    )


class Answers:
    """Makes the frames that answer calls. Any number of threads may use it at once."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms

    def item(self, call: Call, value: Any) -> Frame:
        """Returns the frame of one item. An `ItemError` becomes a failed item.

        Raises:
            BadResult: The value can't be sent.
            TooLarge: The frame would exceed the limit.
        """
        if isinstance(value, ItemError):
            return {"kind": ITEM, "flags": FAILED, "id": call.id, "body": self._error_body(self._describe(value.error))}
        return {"kind": ITEM, "id": call.id, "body": self._encode(value, "the item")}

    def _encode(self, value: Any, what: str) -> Union[bytes, Parts]:
        try:
            body = self._terms.encode(value)
        except BadValue as exc:
            raise BadResult(f"{what} can't be sent: {exc}") from None
        if len(body) + BASE_WEIGHT > self._terms.max_frame:
            raise TooLarge(too_large(what, len(body) + BASE_WEIGHT, self._terms.max_frame))
        if len(body) > LARGE:
            self._terms.large(len(body))
        return body  # type: ignore[no-any-return]

    def result(self, call: Call, value: Any) -> Frame:
        """Returns the end frame with the result.

        Raises:
            BadResult: The value can't be sent.
            TooLarge: The frame would exceed the limit.
        """
        if value is None:
            return {"kind": END, "id": call.id}
        return {"kind": END, "id": call.id, "body": self._encode(value, "the result")}

    def state(self, call: Call, value: Any) -> Frame:
        """Returns the frame with the state of the call's session, which goes before the answer.

        Raises:
            BadResult: The value can't be sent.
            TooLarge: The frame would exceed the limit.
        """
        return {"kind": STATE, "id": call.id, "body": self._encode(value, "the snapshot")}

    def failure(self, call: Call, exc: BaseException) -> Frame:
        """Returns the error frame for the exception that ended the call."""
        type_ = type(exc)
        if issubclass(type_, Refused):
            refused: Any = exc
            error = simple_error(refused.error_type, str(exc))
            if exc.__cause__ is not None:
                error["cause"] = self._describe(exc.__cause__)
            return self.error(call, error, refused.flags)
        if call.cancelled and (issubclass(type_, Cancelled) or type_name(type_).endswith(".CancelledError")):
            return self.error(call, simple_error(CANCELLED, call.reason))
        return self.error(call, self._describe(exc))

    def _describe(self, exc: BaseException) -> Dict[str, Any]:
        return describe(exc, self._terms.codec)

    def error(self, call: Call, error: Mapping[str, Any], flags: int = 0) -> Frame:
        """Returns the frame of a structured error. An error that is too large loses its traceback or its data."""
        frame = {"kind": ERROR, "id": call.id, "body": self._error_body(error)}
        if flags:
            frame["flags"] = flags
        return frame

    def _error_body(self, error: Mapping[str, Any]) -> bytes:
        body = encode_error(error, self._terms.codec.encode, self._terms.max_frame - BASE_WEIGHT)
        if len(body) > LARGE:
            self._terms.large(len(body))
        return body
