"""Tokens to text as they come: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Pieces:
    """The text of one answer, handed out as soon as later tokens cannot change it.

    ``decode`` turns ids into text.  Only the last few tokens are decoded again with each new one,
    so the cost does not grow with the answer.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        waits: Callable[[int], bool] = lambda token: False,
    ) -> None:
        """``waits``: whether the text up to a token may change with the next one."""
        self._decode, self._stop, self._waits = decode, tuple(stop), waits
        self._hold = max((len(s) for s in stop), default=1) - 1
        self._ids: list[int] = []
        self._from, self._upto = 0, 0  # ids[_from:_upto] are context, their text is in self._text
        self._text, self._sent = "", 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All that was handed out."""
        return self._text[: self._sent]

    def add(self, token: int) -> str:
        """The new text that is final now that ``token`` is there."""
        self._ids.append(token)
        fresh = self._fresh()
        # Else: part of a character, or bytes that a later one may spoil.
        if fresh and not fresh.endswith("\ufffd") and not self._waits(token):
            self._text += fresh
            self._from, self._upto = self._upto, len(self._ids)
        return self._send(self._hold)

    def finish(self) -> str:
        """The rest of the text, at the end of the answer."""
        if not self.stopped:
            self._text += self._fresh()
            self._upto = len(self._ids)
        return self._send(0)

    def _fresh(self) -> str:
        """Text of the ids that are not in ``_text`` yet, decoded after those before them."""
        known = self._decode(self._ids[self._from : self._upto])
        return self._decode(self._ids[self._from :])[len(known) :]

    def _send(self, hold: int) -> str:
        if self.stopped:
            return ""
        ends = [position for s in self._stop if (position := self._text.find(s, self._sent)) >= 0]
        self.stopped = bool(ends)
        end = min(ends) if ends else max(len(self._text) - hold, self._sent)
        piece, self._sent = self._text[self._sent : end], end
        return piece
