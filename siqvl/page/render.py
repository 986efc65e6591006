"""Renders every HTML page: templates lie beside the Python that fills them.

A page extends `page/base.html.jinja`, and needs no other file, no script and no network.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError
from siqvl.number_formats import bound_points, percent, points, span
from siqvl.page.pictures import data_uri

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, /, **values: Any) -> str:
    """The text of a page; every value is escaped, so that no text can become markup.

    Args:
        template: its path below `siqvl`, such as `report/pipeline_page.html.jinja`.

    Raises:
        jinja2.UndefinedError: the template asks for a value that is not given.
    """
    return environment().get_template(template).render(values)


def write_page(page: Path, text: str, option: str) -> None:
    """Writes a page that a user has named a place for, and the folders above it.

    Args:
        option: that names the place.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{page} cannot be written ({error.strerror}); give another `{option}`"
        ) from None


@cache
def environment() -> Environment:
    """Where all templates are found, and the filters that they write numbers and texts with."""
    # Tasks import this module at their top, and must not wait for jinja2 to tell their parameters.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("siqvl", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    numbers = (bound_points, interval, percent, points, span, thousands, width)
    for function in (*numbers, capitalized, data_uri, shortened):
        found.filters[function.__name__] = function
    return found


def capitalized(text: str) -> str:
    """A text whose first letter is large and whose others stay as they are."""
    return text[:1].upper() + text[1:]


def interval(shares: tuple[float, float]) -> str:
    """`41.0 – 43.0`, in percent."""
    return f"{100 * shares[0]:.1f}\u202f–\u202f{100 * shares[1]:.1f}"


def shortened(text: str, characters: int) -> str:
    """A text that is cut where it is longer than a page bears."""
    return text if len(text) <= characters else text[:characters].rstrip() + " …"


def thousands(number: float) -> str:
    """`12,345`."""
    return f"{number:,}"


def width(share: float) -> str:
    """`42.00%`, as SVG and CSS take a share."""
    return f"{100 * share:.2f}%"
