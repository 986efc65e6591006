"""Floating-point operations of training, counted for what learns and what does not.

A multiplication with the addition that follows it is two operations. Matrix products are counted,
and nothing else: norms, activations, softmax and rotary embedding are below 1 % of a real model.

A product of an activation and a weight is done once forward, once more backward if a gradient has
to reach the activation, and once more if the weight learns. Both factors of the attention's two
products are activations: three times, wherever there is a graph. So a part that learns costs three
times its forward pass, a frozen one that gradients flow through (the language model while the
projector is aligned) about twice, and the frozen tower once, or nothing where its features are
cached. The 6 operations a parameter and token of Kaplan et al. 2020 (arXiv:2001.08361) are the
first of these, without attention.

What a model needs is counted, not what is computed on the way (padding, the causal upper half, what
checkpointing computes again): PaLM's model FLOPs (Chowdhery et al. 2022, arXiv:2204.02311, appendix
B).
"""

from __future__ import annotations

from collections.abc import Collection

from siqvl.model.configuration import SiQVLConfig
from siqvl.model.decoders import decoder_of
from siqvl.recipe import Part
from siqvl.training.figures.work import Size, Work


class ForwardFlops:
    """One forward pass of each part of the model."""

    def __init__(self, config: SiQVLConfig) -> None:
        vision, text = config.vision_config, config.text_config
        patches = config.patch_grid**2
        hidden, inner = vision.hidden_size, vision.intermediate_size
        decoder = decoder_of(text)
        # an image: the tower's embedding of its pixels, which need no gradient
        self.patches = 2 * patches * vision.num_channels * vision.patch_size**2 * hidden
        # the tower's layers, and their attention
        self.tower = 2 * patches * vision.num_hidden_layers * (4 * hidden**2 + 2 * hidden * inner)
        self.tower_scores = 4 * vision.num_hidden_layers * hidden * patches**2
        self.projector = (
            2 * config.tokens_per_image * config.projector_input_size * text.hidden_size
        )
        # the language model's layers, a token; their attention, a pair of tokens
        self.layers = 2 * text.num_hidden_layers * decoder.layer_products(text)
        self.scores = 4 * text.num_hidden_layers * decoder.query_size(text)
        # a token whose probability is computed
        self.head = 2 * text.hidden_size * text.vocab_size


class TrainingFlops:
    """What training of some parts of a model costs.

    Args:
        config: of the model.
        trainable: the parts that learn.
        cached_features: the tower does not run.
        adapter_weights: by which the language model learns in place of its own, which are frozen.
    """

    def __init__(
        self,
        config: SiQVLConfig,
        trainable: Collection[Part],
        *,
        cached_features: bool = False,
        adapter_weights: int = 0,
    ) -> None:
        self.forward = forward = ForwardFlops(config)
        tower, projector, language = (
            part in trainable for part in ("vision_tower", "projector", "language_model")
        )
        runs = 0 if cached_features else 1
        if tower:
            self.image = 2 * forward.patches + 3 * (forward.tower + forward.tower_scores)
        else:
            self.image = runs * (forward.patches + forward.tower + forward.tower_scores)
        self.image += (1 + projector + tower) * forward.projector
        graph = tower or projector or language  # embeddings learn with the language model
        language = language and not adapter_weights
        self.token = (1 + graph + language) * forward.layers + 3 * 2 * adapter_weights
        self.pair = (1 + 2 * graph) * forward.scores
        self.learned = (1 + graph + language) * forward.head

    def of(self, work: Work[Size]) -> Size:
        """Operations of training on some work, forward and backward."""
        return (
            self.image * work.images
            + self.token * work.tokens
            + self.pair * work.pairs
            + self.learned * work.learned
        )
