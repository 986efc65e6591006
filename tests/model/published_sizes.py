"""The sizes of published parts, as their model cards and papers state them, for shapes on paper."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

#: google/siglip-so400m-patch14-384
SO400M: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "image_size": 384,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
}
#: google/siglip2-base-patch16-224: what transformers takes a SigLIP tower for by default
SIGLIP2_BASE: dict[str, Any] = {"model_type": "siglip_vision_model"}


def _qwen(**sizes: int) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
        "vocab_size": 151_936,
        **sizes,
    }


#: Qwen/Qwen2.5-0.5B-Instruct
QWEN_05B = _qwen(
    hidden_size=896, intermediate_size=4_864, num_attention_heads=14, num_hidden_layers=24
)
#: Qwen/Qwen2.5-1.5B-Instruct
QWEN_15B = _qwen(
    hidden_size=1_536, intermediate_size=8_960, num_attention_heads=12, num_hidden_layers=28
)
#: Qwen/Qwen2.5-3B-Instruct
QWEN_3B = _qwen(
    hidden_size=2_048, intermediate_size=11_008, num_attention_heads=16, num_hidden_layers=36
)
#: Qwen/Qwen2.5-7B-Instruct: the head is a matrix of its own
QWEN_7B = _qwen(
    hidden_size=3_584,
    intermediate_size=18_944,
    num_attention_heads=28,
    num_hidden_layers=28,
    num_key_value_heads=4,
    tie_word_embeddings=False,
    vocab_size=152_064,
)


def _qwen3(**sizes: int) -> dict[str, Any]:
    """As their config.json; heads are 128 wide whatever hidden / heads is."""
    return {
        "model_type": "qwen3",
        "bos_token_id": 151_643,
        "eos_token_id": 151_645,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "tie_word_embeddings": True,
        "vocab_size": 151_936,
        **sizes,
    }


#: Qwen/Qwen3-0.6B, 1.7B and 4B
QWEN3_06B = _qwen3(hidden_size=1_024, intermediate_size=3_072, num_attention_heads=16)
QWEN3_17B = _qwen3(hidden_size=2_048, intermediate_size=6_144, num_attention_heads=16)
QWEN3_4B = _qwen3(
    hidden_size=2_560, intermediate_size=9_728, num_attention_heads=32, num_hidden_layers=36
)


def text_config(sizes: dict[str, Any]) -> PreTrainedConfig:
    """Of a decoder of these sizes."""
    return AutoConfig.for_model(**sizes)
