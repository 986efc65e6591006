"""What all HTML pages share: how a template is rendered, head, style, charts, marks, pictures."""
