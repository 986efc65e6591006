"""What is raised for a row that goes into quarantine; apart from `images`, which loads Pillow."""


class BadRow(Exception):
    """A row that goes into quarantine: a reason to count by, and what exactly was wrong."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
