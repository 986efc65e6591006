"""The page at `/`: one file, which asks nobody but this server."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from pathlib import Path

from starlette.responses import HTMLResponse

FILE = Path(__file__).with_name("chat_page.html")


def chat_page() -> HTMLResponse:
    """Makes the page, and the rules that let it run its own script and nothing else."""
    text = FILE.read_text(encoding="utf-8")
    rules = {
        "default-src": "'none'",
        "script-src": _hashes(text, "script"),
        "style-src": _hashes(text, "style"),
        "img-src": "data: blob:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{rule} {said}" for rule, said in rules.items()),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(text, headers=headers)


def _hashes(text: str, tag: str) -> str:
    """What a rule says of the elements of one kind that stand in the page."""
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
    digests = [base64.b64encode(sha256(one.encode()).digest()).decode() for one in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
