"""Addresses of stores, and the secrets in them."""

from __future__ import annotations

import re

_SECRET = re.compile(r"([?&;][^=&;]*(?:pass|pwd|secret|token|key|cred|sig)[^=&;]*=)[^&;]*", re.I)


def without_password(uri: str) -> str:
    """The address with `***` for each secret: the password, or a token before the host, and query
    parameters whose names say that they hold one.

    A password may hold what should have been escaped (`/`, `@`, `?`, `#`): it ends at the last
    `@`. In `https://host:1/x@y` there is none, since what looks like a port is one.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    web = scheme in ("http", "https")
    head = re.split("[/?#]", rest, maxsplit=1)[0]
    plain = re.fullmatch(r"[^:@]*(:\d*)?" if web else r"[^:@]*", head) or "@" not in rest
    if not plain:
        # An @ in a query is no end of a password that has ended before.
        known = rest if "@" not in rest.partition("?")[0] else rest.partition("?")[0]
        end = known.rindex("@")
        user, colon, _ = rest[:end].partition(":")
        rest = (f"{user}:***" if colon else "***" if web else user) + rest[end:]
    return scheme + separator + _SECRET.sub(r"\1***", rest)


def has_password(uri: str) -> bool:
    """Return whether there is a secret in an address."""
    return without_password(uri) != uri
