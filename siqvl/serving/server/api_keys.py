"""Who may ask: the keys of SIQVL_API_KEYS or of a file, none of which is ever logged."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from pathlib import Path

from siqvl.errors import UserError
from siqvl.serving.server.refusals import Refused

VARIABLE = "SIQVL_API_KEYS"
SHORTEST = 16  # characters of a key that nobody guesses


class ApiKeys:
    """Keys, of which a request has to bring one; without any, everyone may ask.

    Only their digests are kept, of equal length, so that comparing them tells nothing.
    """

    def __init__(self, keys: list[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    @classmethod
    def read(cls, file: Path | None) -> ApiKeys:
        """Reads the keys of a file, one a line, or those of SIQVL_API_KEYS, with commas between.

        Raises:
            UserError: the file cannot be read or holds no key, or a key is too short.
        """
        if file is None:
            where, found = VARIABLE, os.environ.get(VARIABLE, "").split(",")
        else:
            where = f"{file}"
            try:
                lines = file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):
                raise UserError(f"the file of API keys {file} cannot be read") from None
            found = [line for line in lines if not line.lstrip().startswith("#")]
        keys = [key.strip() for key in found if key.strip()]
        if file is not None and not keys:
            raise UserError(f"{where} holds no API key: write one a line")
        if any(len(key) < SHORTEST or not key.isascii() for key in keys):
            raise UserError(
                f"{where} has an API key of fewer than {SHORTEST} characters, or with others than "
                "ASCII's; `openssl rand -hex 24` makes one"
            )
        return cls(keys)

    def check(self, authorization: str | None) -> None:
        """Lets a request pass by its header `Authorization`.

        Raises:
            Refused: it brings no key, or none of these.
        """
        if not self._digests:
            return
        scheme, _, key = (authorization or "").partition(" ")
        given = sha256(key.strip().encode("utf-8", "replace")).digest()
        # all are compared, whichever fits
        known = sum([hmac.compare_digest(given, one) for one in self._digests])
        if scheme.lower() != "bearer" or not known:
            said = "send an API key as `Authorization: Bearer KEY`"
            raise Refused(401, said, code="invalid_api_key")
