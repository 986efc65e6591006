"""What this project has to know of a family of dense decoders that transformers does not say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)


@dataclass(frozen=True)
class DenseDecoder:
    """A family of decoders that share one `model_type`.

    Its classes are those that transformers names for the configuration; what is written here is
    what they do not say. The names and the order within a layer are the common ones, and
    `siqvl.generation.layers` and `siqvl.publish.onnx.graphs` go by them: `embed_tokens`, `layers`,
    `norm` and `rotary_emb`; of a layer `input_layernorm`, `self_attn` (`q_proj`, `k_proj`,
    `v_proj`, `o_proj`), `post_attention_layernorm` and a gated `mlp`, each added to what it reads;
    rotary positions over whole heads; `lm_head`. tests/model/decoders asks every registered family
    for equal figures, so that one that does otherwise is noticed.

    Attributes:
        model_type: of its configuration.
        name: as people call it.
        template: the file of its chat template in this folder or the one above.
        system_prompt: its default system message; "": it has none.
        head_norms: attributes of `self_attn`, RMSNorms over one head of queries and of keys before
            they are rotated; empty where there are none.
        thinks: some of the family write `<think>` … `</think>` before an answer.
    """

    model_type: str
    name: str
    template: Path
    system_prompt: str = ""
    head_norms: tuple[str, str] | tuple[()] = ()
    thinks: bool = False

    def backbone(self, config: PreTrainedConfig) -> type[PreTrainedModel]:
        """The class without a head, which `SiQVLModel` holds."""
        found: type[PreTrainedModel] = MODEL_MAPPING[type(config)]  # type: ignore[assignment]
        return found

    def causal_lm(self, config: PreTrainedConfig) -> type[PreTrainedModel]:
        """The class with a head, of which published weights are."""
        found: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]  # type: ignore[assignment]
        return found

    def layer_class(self, config: PreTrainedConfig) -> str:
        """The name of a layer's class: what FSDP gathers and frees as one.

        Raises:
            ValueError: transformers names none, or several.
        """
        names = set(self.backbone(config)._no_split_modules or ())
        if len(names) != 1:
            raise ValueError(f"{self.name}: transformers names {sorted(names)} as its layers")
        return names.pop()

    def head_size(self, config: PreTrainedConfig) -> int:
        """Channels of a head: its own figure in Qwen3, where heads are not hidden / heads wide."""
        own: int | None = getattr(config, "head_dim", None)
        return own or config.hidden_size // config.num_attention_heads

    def query_size(self, config: PreTrainedConfig) -> int:
        """Channels of a token's queries, of all heads together."""
        return int(config.num_attention_heads) * self.head_size(config)

    def linear_sizes(self, config: PreTrainedConfig) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of each linear layer in a layer of the decoder, by its name."""
        width, inner = int(config.hidden_size), int(config.intermediate_size)
        query = self.query_size(config)
        keys = int(config.num_key_value_heads) * self.head_size(config)
        return {
            "q_proj": (width, query),
            "k_proj": (width, keys),
            "v_proj": (width, keys),
            "o_proj": (query, width),
            "gate_proj": (width, inner),
            "up_proj": (width, inner),
            "down_proj": (inner, width),
        }

    def layer_products(self, config: PreTrainedConfig) -> int:
        """Weights of one layer that every token is multiplied by: FLOPs are counted by it."""
        return sum(inputs * outputs for inputs, outputs in self.linear_sizes(config).values())

    def norms_of_heads(self, attention: nn.Module) -> tuple[nn.Module | None, nn.Module | None]:
        """The norms of queries and of keys of one layer's attention; None where there is none."""
        if not self.head_norms:
            return None, None
        query, key = (attention.get_submodule(name) for name in self.head_norms)
        return query, key
