"""Takes docs/images/chat_page.png: questions about a picture on the page of `siqvl serve`.

python -m docs.chat_page_picture CHECKPOINT

It needs Chromium, as docs/screenshots.py does. The questions are typed and sent as a person would.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.serving.server import Server
from docs.openai_client import picture
from docs.screenshots import IMAGES, WIDTH, Page, browser, save

#: Pictures that are chosen, and what is asked about them.
ASKED = (
    ((("red", "square"),), "what color is the square?"),
    ((("blue", "circle"), ("green", "square")), "what shape is in the first picture?"),
    ((), "what color is the sky?"),
)
#: Chooses files as the button does.
CHOOSE = """
(async () => {
  const files = new DataTransfer();
  for (const uri of %s) {
    const bytes = Uint8Array.from(atob(uri.split(",")[1]), (one) => one.charCodeAt(0));
    files.items.add(new File([bytes], "picture.png", { type: "image/png" }));
  }
  const input = document.getElementById("files");
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
})()
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as page:
        server = Server(Path(sys.argv[1]), Path(folder))
        server.start()
        try:
            chat(page, server.address)
            take(page, "chat_page")
        finally:
            server.end()


def chat(page: Page, address: str) -> list[str]:
    """Asks on the page; returns the answers that it shows."""
    page.call("Log.enable")
    page.call("Page.navigate", url=f"{address}/")
    wait(page, "document.getElementById('question') && model")
    for number, (pictures, question) in enumerate(ASKED, start=1):
        page.evaluate(CHOOSE % json.dumps([picture(*one) for one in pictures]))
        wait(page, f"document.querySelectorAll('#chosen img').length === {len(pictures)}")
        page.evaluate("document.getElementById('question').focus()")
        page.call("Input.insertText", text=question)
        enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        page.call("Input.dispatchKeyEvent", type="keyDown", **enter)
        page.call("Input.dispatchKeyEvent", type="keyUp", **enter)
        wait(page, f"document.querySelectorAll('.about, .error').length >= {number}")
    found = "[...document.querySelectorAll('.turn.assistant')].map((one) => one.innerText)"
    return json.loads(page.evaluate(f"JSON.stringify({found})"))


def wait(page: Page, condition: str) -> None:
    """Waits until a script is true.

    Raises:
        RuntimeError: it never is.
    """
    end = time.monotonic() + 60
    while not page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > end:
            shown = page.evaluate("document.body.innerText")
            raise RuntimeError(f"never: {condition}; the page shows:\n{shown}")
        time.sleep(0.05)


def take(page: Page, name: str) -> None:
    size = {"width": WIDTH, "height": 820, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    time.sleep(0.5)
    shot = page.call("Page.captureScreenshot", format="png")
    save(base64.b64decode(shot["data"]), IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
