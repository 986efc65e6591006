"""The server that speaks OpenAI's protocol: what `siqvl serve` runs over the generation engine."""
