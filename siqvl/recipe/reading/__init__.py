"""Reading of recipe files: YAML or JSON, over their bases, with one sentence for what is wrong."""
