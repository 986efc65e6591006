"""Low-rank adapters on the language model: attached by PEFT, trained, merged, in its format."""
