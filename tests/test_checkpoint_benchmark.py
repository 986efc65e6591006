"""benchmarks/checkpoint.py: its table is printed. Of so few bytes no figure means anything."""

from click.testing import CliRunner

from benchmarks.checkpoint import main


def test_a_table_is_printed() -> None:
    done = CliRunner().invoke(main, ["--mib", "4", "--repeats", "1"])
    assert done.exit_code == 0, done.output
    _, head, _, *lines = done.output.splitlines()
    assert head.split()[:2] == ["files", "sha256sum,"]
    assert [line.split()[0] for line in lines] == ["1", "4"]
