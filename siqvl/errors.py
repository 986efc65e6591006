"""The one exception a user is meant to read, and other exceptions as part of its sentence."""

import re

import click

#: Where an object lies in memory: means nothing to a reader, and differs from run to run.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+(?=>)")


class UserError(click.ClickException):
    """Something the user can put right: a wrong key, a missing file, the wrong checkpoint.

    The message is one sentence that names the file, row or field and says what to do. It derives
    from click's exception because `pyflyte` is a click program, which prints the sentence alone,
    without a traceback. It is deliberately no `ValueError`: pydantic would swallow
    one that is raised inside a validator.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.args = (message,)

    # An exception crosses process borders (loader workers, torch elastic) by pickle.
    def __reduce__(self) -> tuple[type["UserError"], tuple[str]]:
        return (type(self), (self.message,))


class Unreachable(UserError):
    """What the user named may well be there, but its server does not answer now."""


def one_line(error: BaseException) -> str:
    """What an exception says, without line breaks and addresses; its type when it is nothing."""
    return without_addresses(" ".join(str(error).split())) or type(error).__name__


def reason_of(error: BaseException) -> str:
    """Why something failed, on one line: a user's sentence, or another error after its kind."""
    said, kind = one_line(error), type(error).__name__
    return said if isinstance(error, UserError) or said == kind else f"{kind}: {said}"


def without_addresses(text: str) -> str:
    """Text without the places in memory that `repr` gives of objects (`<… object at 0x7f…>`)."""
    return ADDRESS.sub("", text)
