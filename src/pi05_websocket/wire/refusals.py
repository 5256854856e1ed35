# SPDX-License-Identifier: Apache-2.0
"""How a server says that it did not let a request through: a text that is an error to every OpenPI client.

In: why, and what to do. Out: one text message, and back. Pure.

    RequestRefused: busy retry_after_s=0.25: 40 requests wait before this one; it cannot be answered in time.

Nothing went wrong with the connection: a server of ours does not close after it, and a client of ours does not
take it for a failed inference. A stock client raises it as the error that it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

__all__ = ["KINDS", "REFUSED", "Refusal", "RefusalKind", "read_refusal", "refusal_text"]

REFUSED: Final = "RequestRefused: "
"""How the text begins."""

RefusalKind = Literal["busy", "late", "superseded", "rate"]
"""Why:

- `busy`: too many wait for the policy; it would be answered after its deadline.
- `late`: it came too late to be answered before its deadline, however idle the server is.
- `superseded`: a newer observation of the same robot came before its turn.
- `rate`: its key may not ask so often.
"""

KINDS: Final[tuple[RefusalKind, ...]] = get_args(RefusalKind)

_MOST_S: Final = 3600.0
_FORM: Final = re.compile(
    rf"(?P<kind>{'|'.join(KINDS)})(?: retry_after_s=(?P<after>\d{{1,6}}(?:\.\d{{1,3}})?))?: (?P<text>.*)",
    re.DOTALL | re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was not let through."""

    kind: RefusalKind
    text: str
    """A sentence for a person."""

    retry_after_s: float | None = None
    """How long to wait before asking again, in seconds; None: ask as soon as there is something to ask."""


def refusal_text(refusal: Refusal) -> str:
    """Return the text to send."""
    after = refusal.retry_after_s
    when = "" if after is None else f" retry_after_s={min(max(after, 0.0), _MOST_S):.3f}"
    return f"{REFUSED}{refusal.kind}{when}: {refusal.text}"


def read_refusal(text: str) -> Refusal | None:
    """Return what a server's text says; None for any other text, an error's for instance."""
    if not text.startswith(REFUSED):
        return None
    said = _FORM.fullmatch(text[len(REFUSED) :])
    if said is None:
        return None
    after = said["after"]
    kind = next(kind for kind in KINDS if kind == said["kind"])
    return Refusal(
        kind=kind,
        text=said["text"],
        retry_after_s=None if after is None else min(float(after), _MOST_S),
    )
