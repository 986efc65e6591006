"""Pictures and text -> model inputs: each `<|image_pad|>` grows to the tokens an image takes.

This file travels inside every checkpoint (`trust_remote_code`), so it imports nothing else of
siqvl.
"""

from typing import Any

from transformers.processing_utils import MultiModalData, ProcessorMixin

IMAGE_TOKEN = "<|image_pad|>"


class SiQVLProcessor(ProcessorMixin):
    """SigLIP image processor + Qwen tokenizer + chat template.

    Text comes first, as from `apply_chat_template`, with one `<|image_pad|>` for each image;
    calling the processor expands each to `num_image_tokens` of them. `__call__` is transformers'
    own: it raises ValueError when images and placeholders differ in number, with both numbers.

    Args:
        image_processor: a SigLIP image processor (every image becomes one square).
        tokenizer: a Qwen tokenizer that knows `image_token`.
        num_image_tokens: `SiQVLConfig.tokens_per_image`; kept in processor_config.json.
        chat_template: Jinja source; kept in chat_template.jinja.
        image_token: the placeholder.

    Raises:
        ValueError: the tokenizer does not know `image_token` as one token.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        num_image_tokens: int | None = None,
        chat_template: str | None = None,
        image_token: str = IMAGE_TOKEN,
    ):
        if not isinstance(num_image_tokens, int) or num_image_tokens < 1:
            raise ValueError(f"num_image_tokens must be a positive int, got {num_image_tokens!r}.")
        ids = tokenizer.encode(image_token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(
                f"The tokenizer splits {image_token!r} into {len(ids)} tokens, expected 1."
            )
        # ProcessorMixin reads these while it initialises, so they are set before it.
        self.num_image_tokens = num_image_tokens
        self.image_token = image_token
        self.image_token_id = ids[0]
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        """The text that takes the place of one image's placeholder."""
        return self.image_token * self.num_image_tokens

    def _get_num_multimodal_tokens(
        self, image_sizes: list[list[int]] | None = None, **kwargs: Any
    ) -> MultiModalData:
        """Tokens each image will take, before any is opened; vLLM plans its memory by this."""
        if image_sizes is None:
            return MultiModalData()
        count = len(image_sizes)
        return MultiModalData(
            num_image_tokens=[self.num_image_tokens] * count, num_image_patches=[1] * count
        )


__all__ = ["SiQVLProcessor"]
