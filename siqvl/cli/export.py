"""`siqvl export`: a checkpoint in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("checkpoint")
@click.option("--format", "kind", type=click.Choice(["onnx"]), default="onnx", show_default=True)
@click.option(
    "--weights",
    type=click.Choice(["fp32", "int8", "int4"]),
    default="fp32",
    show_default=True,
    help="Of matrix products; whole numbers have a scale for every 32.",
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", show_envvar=True, help="For models:/")
def export(
    checkpoint: str, kind: str, weights: Any, output: Path, tracking_uri: str | None
) -> None:
    """Export CHECKPOINT, a folder, hub id, models:/… or runs:/…, as ONNX graphs.

    vision.onnx makes image tokens of pixels; decoder.onnx reads tokens and a cache and scores what
    follows. Both are compared with the model before the folder is there.
    """
    from siqvl.checkpoint import check_outside
    from siqvl.errors import UserError
    from siqvl.publish.onnx.export_onnx import export_onnx
    from siqvl.publish.onnx.onnx_model import EXPORT
    from siqvl.registry.resolve import resolve_checkpoint

    if output.exists() and not (output / EXPORT).is_file():
        raise UserError(f"{output} is there already; name another folder with `-o`")
    folder = resolve_checkpoint(checkpoint, tracking_uri=tracking_uri)
    check_outside(output, folder, "-o")
    made = export_onnx(folder, output, weights)
    for name in sorted(made.files):
        click.echo(f"{(output / name).stat().st_size:>15,}  {name}")
    click.echo(f"largest difference of a score to PyTorch's: {made.difference:.2g} ({weights})")
    click.echo(str(output))
