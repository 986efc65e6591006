"""torch.compile where it pays: the decoder layers, which are all alike."""

from __future__ import annotations

from siqvl.model.modeling import SiQVLForConditionalGeneration


def compile_layers(model: SiQVLForConditionalGeneration) -> None:
    """Compile each layer of the language model, in place; names of weights stay as they are.

    Layer by layer (PyTorch's regional compilation): one layer's code serves all of them, so that
    starting takes seconds, not minutes, and what depends on data, such as where pictures go, stays
    outside. Shapes are dynamic from the first batch on, as no two batches are of one length.
    """
    for layer in model.model.language_model.layers:
        layer.compile(dynamic=True)
