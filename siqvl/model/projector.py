"""Vision features -> language embeddings: pixel shuffle, one Linear, one LayerNorm.

Pixel shuffle is space-to-depth as SmolVLM and InternVL use it (transformers `Idefics3Connector`,
`InternVLModel`; Shi et al., arXiv 1609.05158, run backwards). Bit-equal to both.
"""

import torch
from torch import nn

from .configuration import SiQVLConfig


def pixel_shuffle(features: torch.Tensor, factor: int) -> torch.Tensor:
    """Folds each factor x factor square of patches into the channels of one token.

    Args:
        features: [batch, side * side, hidden], patches in row-major order.
        factor: side of the folded square; must divide `side`.

    Returns:
        [batch, (side / factor)^2, hidden * factor^2]; inside a token the square's rows come first,
        then its columns, then hidden.

    Raises:
        ValueError: the patches form no square, or `factor` does not divide its side.
    """
    batch, patches, hidden = features.shape
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(
            f"Pixel shuffle needs a square grid, got {patches} patches (nearest: {side}x{side})."
        )
    if side % factor:
        raise ValueError(f"Pixel shuffle factor {factor} does not divide the grid side {side}.")
    coarse = side // factor
    squares = features.reshape(batch, coarse, factor, coarse, factor, hidden)
    # -> [batch, coarse row, coarse column, row in square, column in square, hidden]
    squares = squares.permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(batch, coarse * coarse, factor * factor * hidden)


class SiQVLProjector(nn.Module):
    """[images, patches, vision hidden] -> [images, tokens_per_image, text hidden].

    With SigLIP-so400m-384 and Qwen2.5-0.5B: 729x1152 -> 81x10368 -> 81x896.
    How it starts is decided in one place, `SiQVLPreTrainedModel._init_weights`.
    """

    def __init__(self, config: SiQVLConfig):
        super().__init__()
        self.factor: int = config.pixel_shuffle_factor  # type: ignore[assignment]
        self.linear = nn.Linear(config.projector_input_size, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # A tower kept in bf16, or features from a bf16 cache, meet a projector that trains in fp32.
        tokens = pixel_shuffle(features, self.factor).to(self.linear.weight.dtype)
        return self.norm(self.linear(tokens))
