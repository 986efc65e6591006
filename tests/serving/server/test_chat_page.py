"""The page at `/` in a real browser, which types, chooses pictures and reads answers."""

from __future__ import annotations

import shutil

import pytest

from tests.serving.server.running_server import LIMITS, MODEL, Running, running, user

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not any(map(shutil.which, ("chromium", "chromium-browser"))),
        reason="needs Debian's package chromium",
    ),
]


@pytest.fixture
def page(served: Running):
    from docs.screenshots import browser

    with browser() as found:
        yield found


def test_it_chats_about_pictures(served: Running, page) -> None:
    from docs.chat_page_picture import ASKED, chat
    from docs.openai_client import picture

    answers = chat(page, f"http://127.0.0.1:{served.port}")
    turns = []
    for (pictures, question), answer in zip(ASKED, answers, strict=True):
        parts = user(question, *[picture(*one) for one in pictures])
        turns.append(parts)
        expected = served.chat(*turns).json()["choices"][0]["message"]["content"]
        told, about = answer.rsplit("\n", 1)
        assert told.strip() == expected
        assert "tokens" in about
        turns.append({"role": "assistant", "content": expected})
    assert page.evaluate("document.title") == MODEL
    # nothing but this server was asked, and no rule of the page was broken
    asked = page.evaluate(
        "JSON.stringify(performance.getEntriesByType('resource').map((one) => one.name))"
    )
    assert f"http://127.0.0.1:{served.port}/v1/chat/completions" in asked
    assert asked.count("http://") == asked.count(f"http://127.0.0.1:{served.port}/")
    assert "https://" not in asked


def test_its_rules_let_no_other_script_run(served: Running, page) -> None:
    from docs.chat_page_picture import wait

    page.call("Page.navigate", url=f"http://127.0.0.1:{served.port}/")
    wait(page, "document.getElementById('question') && model")
    page.evaluate(
        "window.broken = 0; document.addEventListener('securitypolicyviolation', () => broken++);"
        "const one = document.createElement('script'); one.textContent = 'window.ran = true';"
        "document.body.append(one); fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    wait(page, "window.broken === 2")
    assert page.evaluate("window.ran === undefined")


def test_errors_are_shown_and_a_chat_goes_on(small, page) -> None:
    from docs.chat_page_picture import wait

    key = "a-key-that-nobody-guesses"
    with running(*small, key, limits=LIMITS) as found:
        page.call("Page.navigate", url=f"http://127.0.0.1:{found.port}/")
        wait(page, "document.getElementById('question')")
        ask = (
            "document.getElementById('question').value = 'hi';"
            "document.getElementById('form').requestSubmit();"
        )
        page.evaluate(ask)
        wait(page, "document.querySelector('.error')")
        assert "send an API key" in page.evaluate("document.querySelector('.error').innerText")
        page.evaluate(f"document.getElementById('key').value = '{key}';{ask}")
        wait(page, "document.querySelector('.turn.assistant .about')")
        assert page.evaluate("turns.length") == 2
        page.evaluate("document.getElementById('reset').click()")
        assert page.evaluate("turns.length + document.querySelectorAll('.turn').length") == 0
