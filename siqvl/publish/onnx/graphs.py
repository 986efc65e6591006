"""The two graphs of an export: pixels to image tokens, and tokens to scores with a KV cache.

They are the model's own modules, but for what depends on data in Python: masks, positions and the
places of image tokens are computed from the attention mask and the ids inside of the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from siqvl.model.decoders import decoder_of
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Inputs of the decoder before its cache.
DECODER_INPUTS = ("input_ids", "image_features", "attention_mask")


class VisionGraph(nn.Module):
    """Pixels [images, 3, H, W] -> image tokens [images, tokens_per_image, text hidden]."""

    def __init__(self, model: SiQVLForConditionalGeneration) -> None:
        super().__init__()
        self._tower = model.model.vision_tower
        self._projector = model.model.multi_modal_projector

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self._tower(pixel_values, return_dict=True).last_hidden_state
        return self._projector(features)


class DecoderGraph(nn.Module):
    """Tokens and a cache -> scores of the next token at every position, and the longer cache.

    Rows are padded on the left. Image tokens take the places of `<|image_pad|>` in reading order
    over the batch; in steps that write, there are none of them.
    """

    def __init__(self, model: SiQVLForConditionalGeneration) -> None:
        super().__init__()
        config = model.config.text_config
        self._text = model.model.language_model
        self._head = model.lm_head
        self._image_token = model.config.image_token_id
        self._heads = config.num_key_value_heads
        self._groups = config.num_attention_heads // config.num_key_value_heads
        self._decoder = decoder_of(config)
        self.head_size = self._decoder.head_size(config)

    def forward(
        self,
        input_ids: torch.Tensor,
        image_features: torch.Tensor,
        attention_mask: torch.Tensor,
        cache: list[torch.Tensor],
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """
        Args:
            input_ids: [batch, sequence], int64.
            image_features: [image tokens, hidden] of all pictures of these ids, or [0, hidden].
            attention_mask: [batch, past + sequence], int64; 0 where a row is padded.
            cache: key and value of every layer in turns, [batch, key-value heads, past, size].

        Returns:
            Scores [batch, sequence, vocabulary], and the cache of past + sequence tokens.
        """
        sequence = input_ids.shape[1]
        hidden = self._embedded(input_ids, image_features)
        places = torch.cumsum(torch.ones_like(attention_mask), 1) - 1
        positions = (torch.cumsum(attention_mask, 1) - 1).clamp(min=0)[:, -sequence:]
        allowed = places[:, None, None, :] <= places[:, None, -sequence:, None]
        allowed = allowed & attention_mask[:, None, None, :].bool()
        # the least finite number, not -inf: a padded query sees nothing, and must not become NaN
        unseen = torch.where(allowed, 0.0, torch.finfo(hidden.dtype).min)
        cos, sin = self._text.rotary_emb(hidden, positions)
        longer: list[torch.Tensor] = []
        for number, layer in enumerate(self._text.layers):
            past = cache[2 * number], cache[2 * number + 1]
            normed = layer.input_layernorm(hidden)
            found, key, value = self._attend(layer.self_attn, normed, cos, sin, unseen, past)
            longer += [key, value]
            hidden = hidden + found
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self._head(self._text.norm(hidden)), longer

    def _embedded(self, ids: torch.Tensor, image_features: torch.Tensor) -> torch.Tensor:
        """Embeddings [batch, sequence, hidden] with image tokens in their places."""
        words = self._text.embed_tokens(ids)
        marked = (ids == self._image_token).reshape(-1)
        number = torch.cumsum(marked.long(), 0)  # of the image token that stands at a place, from 1
        features = F.pad(image_features, (0, 0, 1, 0)).to(words.dtype)
        count = torch.ones_like(image_features[:, 0]).sum().long()
        there = marked & (number <= count)  # a mark that was written is a token like any other
        chosen = features[torch.where(there, number, torch.zeros_like(number))]
        return torch.where(there.reshape(ids.shape)[..., None], chosen.reshape(words.shape), words)

    def _attend(
        self,
        attention: Any,
        normed: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        unseen: torch.Tensor,
        past: tuple[torch.Tensor, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention of a layer; it groups queries by the key that they share."""
        batch, sequence = normed.shape[0], normed.shape[1]
        query, key, value = (
            project(normed).reshape(batch, sequence, -1, self.head_size)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        query_norm, key_norm = self._decoder.norms_of_heads(attention)
        query = _rotated(query if query_norm is None else query_norm(query), cos, sin)
        key = _rotated(key if key_norm is None else key_norm(key), cos, sin)
        value = value.transpose(1, 2)
        key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        grouped = query.reshape(batch, self._heads, self._groups, sequence, self.head_size)
        scores = grouped @ key[:, :, None].transpose(-1, -2) * attention.scaling
        shares = torch.softmax((scores + unseen[:, None]).float(), -1).to(value.dtype)
        found = shares @ value[:, :, None]
        found = found.reshape(batch, -1, sequence, self.head_size).transpose(1, 2)
        return attention.o_proj(found.reshape(batch, sequence, -1)), key, value


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions: [batch, sequence, heads, size] -> [batch, heads, sequence, size]."""
    heads = heads.transpose(1, 2)
    first, second = heads.chunk(2, -1)
    return heads * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
