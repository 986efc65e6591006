"""The page in a browser: nothing wider than a phone, nothing blank, and on paper too."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from siqvl.evaluation.gates.gate import judge
from siqvl.evaluation.over_controls import over_controls
from siqvl.report.pipeline_page import PAGE, write_page
from tests.made_pipeline import Made, make_pipeline

pytestmark = pytest.mark.integration

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--force-device-scale-factor=1", "--allow-file-access-from-files"),
)
DARK = "--blink-settings=preferredColorScheme=0"
#: An A4 sheet in PDF points.
A4 = (595, 842)

#: Measures the page in a frame as wide as the screen that is meant; a window cannot be narrower
#: than some 500 pixels in every version of Chromium.
MEASURE = """<!doctype html><iframe id=f src="{page}" style="width:{width}px;height:800px;border:0">
</iframe><p id=found></p><script>
const frame = document.getElementById("f");
frame.onload = () => {{
  const inside = frame.contentDocument, root = inside.documentElement;
  const cut = [...inside.querySelectorAll("main *")].filter((one) => {{
    const box = one.getBoundingClientRect();
    return box.width && box.right > {width} + 1 && !one.closest(".scroll");
  }});
  document.getElementById("found").textContent =
    `width=${{root.scrollWidth}} height=${{root.scrollHeight}} cut=${{cut.length}} ` +
    cut.slice(0, 3).map((one) => one.outerHTML.slice(0, 80)).join(" ");
}};
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser to look with: none of {', '.join(BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stages on five benchmarks."""
    folder = tmp_path_factory.mktemp("page")
    made: Made = make_pipeline(folder, questions=400)
    reports = [*made.reports, made.control]
    write_page(
        made.recipe,
        folder,
        run="20260101-000000-abcd",
        checkpoints=made.checkpoints,
        reports=reports,
        benchmarks=made.benchmarks,
        verdicts=judge(made.recipe.evaluation.gates, reports),
        compared=over_controls(reports),
    )
    keep = os.environ.get("SIQVL_SCREENS")
    if keep:
        shutil.copy(folder / PAGE, Path(keep) / PAGE)
    return folder / PAGE


def look(browser: str, profile: Path, *arguments: str) -> str:
    """Run the browser once; what it prints."""
    done = subprocess.run(
        [browser, *QUIET, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shoot(
    browser: str, page: Path, folder: Path, width: int, height: int, *extra: str
) -> Image.Image:
    """The top of the page on a screen of this size, as grey values."""
    path = folder / f"{width}x{height}{'-dark' if DARK in extra else ''}.png"
    size = f"--window-size={width},{height}"
    look(browser, folder / "profile", size, f"--screenshot={path}", *extra, page.as_uri())
    keep = os.environ.get("SIQVL_SCREENS")  # a folder for whoever wants to see them
    if keep:
        shutil.copy(path, keep)
    return Image.open(path).convert("L")


class Measured(NamedTuple):
    """Of a page on a screen, in pixels; `cut` elements stand out at the right."""

    width: int
    height: int
    cut: int
    first: str


def measure(browser: str, page: Path, folder: Path, width: int) -> Measured:
    wrapper = folder / "measure.html"
    wrapper.write_text(MEASURE.format(page=page.as_uri(), width=width))
    printed = look(browser, folder / "profile", "--dump-dom", wrapper.as_uri())
    found = re.search(r"width=(\d+) height=(\d+) cut=(\d+) ?(.*?)</p>", printed)
    assert found, printed[-500:]
    return Measured(int(found[1]), int(found[2]), int(found[3]), found[4])


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_wider_than_the_screen(
    browser: str, page: Path, tmp_path: Path, width: int
) -> None:
    measured = measure(browser, page, tmp_path, width)
    assert measured.width == width
    assert measured.cut == 0, measured.first
    assert measured.height > 3000


def test_what_is_too_wide_would_be_seen(browser: str, page: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.html"
    content = page.read_text(encoding="utf-8")
    wide.write_text(content.replace("<footer>", '<p style="width: 900px">wide</p><footer>'))
    measured = measure(browser, wide, tmp_path, 360)
    assert measured.width > 360
    assert measured.cut == 1
    assert "wide" in measured.first


def bands(image: Image.Image, count: int) -> list[float]:
    """Standard deviation of the grey values in equal bands from top to bottom."""
    return [float(band.std()) for band in np.array_split(np.asarray(image, dtype=float), count)]


@pytest.mark.parametrize(("width", "height"), [(360, 800), (1280, 900), (1280, 4500)])
def test_nothing_is_blank(
    browser: str, page: Path, tmp_path: Path, width: int, height: int
) -> None:
    image = shoot(browser, page, tmp_path, width, height)
    assert image.size == (width, height)
    assert min(bands(image, 4)) > 5


def test_dark_is_dark_and_light_is_light(browser: str, page: Path, tmp_path: Path) -> None:
    light = shoot(browser, page, tmp_path, 1280, 900)
    dark = shoot(browser, page, tmp_path, 1280, 900, DARK)
    assert np.median(np.asarray(light)) > 220
    assert np.median(np.asarray(dark)) < 40
    assert min(bands(dark, 4)) > 5


def test_it_prints_on_a_few_sheets(browser: str, page: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.pdf"
    printed = f"--print-to-pdf={path}"
    look(browser, tmp_path / "profile", "--no-pdf-header-footer", printed, page.as_uri())
    content = path.read_bytes()
    sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", content)
    assert 4 <= len(sheets) <= 9
    for width, height in sheets:
        assert (float(width), float(height)) == pytest.approx(A4, abs=1)
