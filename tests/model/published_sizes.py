"""The sizes of published parts, as their model cards and papers state them, for shapes on paper."""

from typing import Any

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
#: Qwen/Qwen2.5-7B-Instruct
QWEN_7B = _qwen(
    hidden_size=3_584,
    intermediate_size=18_944,
    num_attention_heads=28,
    num_hidden_layers=28,
    num_key_value_heads=4,
    tie_word_embeddings=False,
    vocab_size=152_064,
)
