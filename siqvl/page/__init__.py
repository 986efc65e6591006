"""What all HTML pages share: their frame, their style, axes and marks."""
