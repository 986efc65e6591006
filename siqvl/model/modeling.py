"""SiQ-VL: SigLIP tower -> projector -> decoder, as a native transformers model.

The tower's last hidden state (after its final LayerNorm) is projected, and the resulting vectors
take the places of the `<|image_pad|>` embeddings, in order. Everything after that is the decoder
alone, whichever transformers has for the text configuration: Qwen2, Qwen2.5, Qwen3.

There is no loss or logit code beyond transformers' own but for `head_chunk`, which the project's
trainers ask for: TRL replaces `forward` by backbone + `lm_head.weight`, so whatever else stood here
would silently not be trained there.

This file travels inside every checkpoint (`trust_remote_code`), so of siqvl it imports only its
three neighbours. Attribute names follow transformers' LLaVA, which vLLM, TRL and PEFT look for.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel, SiglipVisionModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    ModelOutput,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import torch_compilable_check
from transformers.utils.generic import can_return_tuple

from .configuration import SiQVLConfig
from .projector import SiQVLProjector
from .token_log_probs import token_log_probs


@dataclass
class SiQVLModelOutput(BaseModelOutputWithPast):
    """The decoder's output plus `image_hidden_states` [images, tokens_per_image, text hidden]."""

    image_hidden_states: torch.Tensor | None = None


@dataclass
class SiQVLCausalLMOutput(ModelOutput):
    """A causal language model's plus `image_hidden_states` [images, tokens_per_image, text hidden],
    and `log_probs` [labelled tokens] where they were asked for."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None


class SiQVLPreTrainedModel(PreTrainedModel):
    """Loading, saving and what the parts support; see transformers `PreTrainedModel`."""

    config: SiQVLConfig
    config_class = SiQVLConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    # transformers adds those of the decoder when one is built
    _no_split_modules = [  # noqa: RUF012
        "SiglipVisionEmbeddings",
        "SiglipEncoderLayer",
        "SiQVLProjector",
    ]
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, which names in `auto_map` only the saved class, under one name; vLLM
        asks for "AutoModel", the backbone, and `pipeline("any-to-any")` for
        "AutoModelForMultimodalLM", whichever class was saved."""
        if self._auto_class is not None:
            named = getattr(self.config, "auto_map", None) or {}
            self.config.auto_map = {
                **named,
                "AutoModel": "modeling.SiQVLModel",
                "AutoModelForMultimodalLM": "modeling.SiQVLForConditionalGeneration",
            }
        return super().save_pretrained(save_directory, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the projector so that image tokens enter at the scale of text embeddings.

        The Linear keeps variance (normal, std = fan_in^-0.5; zero bias). The LayerNorm's gain is
        the text model's `initializer_range`, the RMS its embeddings start with; `assemble` refines
        it to the RMS of the pretrained embeddings. With PyTorch's gain of 1 image tokens would be
        some 50 times larger than text ones, and in a pre-norm decoder the early layers could hardly
        move them (arXiv 2503.17349 measures that imbalance and what it costs).
        """
        # The tower and the language model initialise themselves, so the only LayerNorm and the only
        # Linear with a bias that arrive here are the projector's. (transformers never calls this
        # for the projector itself: a module without parameters of its own counts as initialised.)
        if isinstance(module, nn.LayerNorm):
            init.constant_(module.weight, self.config.text_config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear) and module.bias is not None:
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class SiQVLModel(SiQVLPreTrainedModel):
    """The multimodal backbone without a language head.

    The tower has no pooling head, because every patch is read: so400m has 412,987,248 parameters
    here, not the published 428,225,600, and SigLIP2-base 85,797,120, not 92,884,224.
    """

    def __init__(self, config: SiQVLConfig):
        super().__init__(config)
        self.vision_tower = SiglipVisionModel._from_config(config.vision_config)
        self.multi_modal_projector = SiQVLProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    @property
    def vision_tower_is_frozen(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.vision_tower.parameters())

    def train(self, mode: bool = True) -> "SiQVLModel":
        """A frozen tower stays in eval: Trainer calls `train()` each step, and in train mode
        gradient checkpointing would wrap its layers."""
        super().train(mode)
        if self.vision_tower_is_frozen:
            self.vision_tower.eval()
        return self

    def get_vision_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Tower features before the projector: what a feature cache stores.

        Args:
            pixel_values: [images, 3, image_size, image_size].

        Returns:
            [images, patches, vision hidden], after the tower's final LayerNorm. Without a graph
            when nothing in the tower trains, even though gradient checkpointing hooks its
            embeddings to require grad (transformers `enable_input_require_grads`).

        Raises:
            ValueError: the pixels are not of the size the tower was built for.
        """
        features = self._seen(pixel_values, **kwargs).last_hidden_state
        assert features is not None
        return features

    def _seen(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """The tower's output, of which `get_vision_features` is the last hidden state."""
        size = self.config.vision_config.image_size
        channels = self.config.vision_config.num_channels
        if tuple(pixel_values.shape[1:]) != (channels, size, size):
            raise ValueError(
                f"pixel_values must be [images, {channels}, {size}, {size}], "
                f"got {list(pixel_values.shape)}."
            )
        frozen = self.vision_tower_is_frozen  # asked anew: a stage may (un)freeze after `train()`
        should_train = self.training and not frozen
        if self.vision_tower.training != should_train:
            self.vision_tower.train(should_train)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            return self.vision_tower(pixel_values, return_dict=True, **kwargs)

    def project_vision_features(self, vision_features: torch.Tensor) -> BaseModelOutputWithPooling:
        """Tower features [images, patches, vision hidden] -> the output of `get_image_features`.

        Raises:
            ValueError: features of another tower.
        """
        expected = (self.config.patch_grid**2, self.config.vision_config.hidden_size)
        if vision_features.ndim != 3 or tuple(vision_features.shape[1:]) != expected:
            raise ValueError(
                f"vision_features must be [images, {expected[0]}, {expected[1]}], "
                f"got {list(vision_features.shape)}."
            )
        vision_features = vision_features.to(self.multi_modal_projector.linear.weight.device)
        return BaseModelOutputWithPooling(
            last_hidden_state=vision_features,
            pooler_output=self.multi_modal_projector(vision_features),
        )

    @can_return_tuple
    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Pixels [images, 3, H, W] -> `pooler_output` [images, tokens_per_image, text hidden].

        `last_hidden_state` holds the tower features [images, patches, vision hidden]; with
        `output_hidden_states` or `output_attentions` the tower's own come along.
        """
        seen = self._seen(pixel_values, **kwargs)
        assert seen.last_hidden_state is not None
        output = self.project_vision_features(seen.last_hidden_state)
        output.hidden_states, output.attentions = seen.hidden_states, seen.attentions
        return output

    def get_placeholder_mask(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        image_features: torch.Tensor | None,
    ) -> torch.BoolTensor:
        """Marks the `<|image_pad|>` positions and checks that features exist for exactly those.

        Returns:
            [batch, sequence, 1].

        Raises:
            ValueError: "Image features and image tokens do not match" with both counts. TRL looks
                for these words to explain truncated prompts. A compiled graph raises RuntimeError
                with the words alone.
        """
        if input_ids is None:
            placeholder = torch.full(
                (), self.config.image_token_id, dtype=torch.long, device=inputs_embeds.device
            )
            mask = (inputs_embeds == self.get_input_embeddings()(placeholder)).all(-1)
        else:
            mask = (input_ids == self.config.image_token_id).to(inputs_embeds.device)
        tokens = mask.sum()
        features = 0 if image_features is None else image_features.shape[0]
        if torch.compiler.is_compiling():
            # Part of the graph: to look at the count from Python would break it. The sentence has
            # no numbers, because none are known yet.
            torch._assert_async(tokens == features, "Image features and image tokens do not match")
        else:
            torch_compilable_check(
                tokens == features,
                lambda: (
                    "Image features and image tokens do not match, "
                    f"tokens: {int(tokens)}, features: {features}"
                ),
            )
        return mask.unsqueeze(-1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> SiQVLModelOutput:
        """
        Args:
            input_ids: [batch, sequence], with `tokens_per_image` placeholders for each image;
                images are taken in reading order over the whole batch, any number per row.
            pixel_values: [images, 3, image_size, image_size]; None for a batch of text only.
            vision_features: [images, patches, vision hidden], tower features computed earlier,
                instead of `pixel_values`.
            mm_encoder_outputs: {"image": output of `get_image_features`}; `generate` encodes once
                and passes this, so that beams share one pass.
            attention_mask: [batch, sequence], left or right padding. None together with restarting
                `position_ids` means packed rows: the samples of a row do not see each other.

        Raises:
            ValueError: more than one source of images, both or neither of ids and embeddings, a
                count of features and placeholders that differs, or a packed row that would leak.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        images = self._encode_images(pixel_values, vision_features, mm_encoder_outputs)
        if images is not None or _starts_a_sequence(input_ids, past_key_values):
            inputs_embeds = self._with_images(input_ids, inputs_embeds, images)

        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=self._packing_safe_use_cache(
                attention_mask, position_ids, past_key_values, use_cache
            ),
            **kwargs,
        )
        return SiQVLModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=None if images is None else images.pooler_output,
        )

    def _encode_images(
        self,
        pixel_values: torch.Tensor | None,
        vision_features: torch.Tensor | None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None,
    ) -> BaseModelOutputWithPooling | None:
        """Whichever source of images was given, as the output of `get_image_features`."""
        encoded = (mm_encoder_outputs or {}).get("image")
        given = {
            "pixel_values": pixel_values,
            "vision_features": vision_features,
            "mm_encoder_outputs": encoded,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(f"Images were given more than once: {' and '.join(names)}.")
        if pixel_values is not None:
            return self.get_image_features(pixel_values, return_dict=True)
        if vision_features is not None:
            return self.project_vision_features(vision_features)
        return encoded

    def _with_images(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor,
        images: BaseModelOutputWithPooling | None,
    ) -> torch.Tensor:
        """[batch, sequence, hidden] with image features in the places of their placeholders.

        Raises:
            ValueError: see `get_placeholder_mask`; without images there must be no placeholder.
        """
        if images is None:
            self.get_placeholder_mask(input_ids, inputs_embeds, None)
            return inputs_embeds
        # [images, tokens, hidden], or a list of [tokens, hidden] when `generate` chunks it.
        rows: Any = images.pooler_output
        # A tensor is not made a list, whose length a graph with open shapes would have to know.
        flat = rows.flatten(0, 1) if isinstance(rows, torch.Tensor) else torch.cat(list(rows))
        features = flat.to(inputs_embeds.device, inputs_embeds.dtype)
        mask = self.get_placeholder_mask(input_ids, inputs_embeds, features)
        return inputs_embeds.masked_scatter(mask, features)

    def _packing_safe_use_cache(
        self,
        attention_mask: torch.Tensor | dict | None,
        position_ids: torch.LongTensor | None,
        past_key_values: Cache | None,
        use_cache: bool | None,
    ) -> bool | None:
        """Keeps packed rows isolated.

        transformers infers isolation from restarting `position_ids`, but only when there is neither
        an attention mask nor a cache (masking_utils.py `_preprocess_mask_arguments`); otherwise
        samples leak into each other without a word. Decoders make a cache by default, so it
        is turned off here.
        """
        if position_ids is None or past_key_values is not None:
            return use_cache
        if attention_mask is None:
            if use_cache and _restarts(position_ids, None):
                raise ValueError(
                    "Packed rows (restarting position_ids) need use_cache=False, got True."
                )
            # modeling_flash_attention_utils.py `_is_packed_sequence` looks for them in one row only
            flash = self.config.text_config._attn_implementation == "flash_attention_2"
            if flash and len(position_ids) > 1 and _restarts(position_ids, None):
                raise ValueError(
                    "flash_attention_2 keeps packed rows (restarting position_ids) apart only in a "
                    f"batch of one row, got {len(position_ids)}: samples would see each other."
                )
            return False if use_cache is None else use_cache
        # Looking costs a device synchronisation: only training, where packing happens, pays it.
        if (
            self.training
            and isinstance(attention_mask, torch.Tensor)
            and attention_mask.ndim == 2
            and _restarts(position_ids, attention_mask)
        ):
            raise ValueError(
                "Packed rows (restarting position_ids) need attention_mask=None, got a mask of "
                f"shape {list(attention_mask.shape)}: with it packed samples see each other."
            )
        return use_cache


def _starts_a_sequence(input_ids: torch.Tensor | None, past_key_values: Cache | None) -> bool:
    """Whether placeholders must have images: not in decoding steps, where a sampled one is just a
    token. The length is asked first, because a compiled step must not look into its cache."""
    if input_ids is None or (input_ids.shape[1] == 1 and past_key_values is not None):
        return False
    if past_key_values is None:
        return True
    # A static cache counts on the device, and to ask it would break a graph.
    return not torch.compiler.is_compiling() and bool(past_key_values.get_seq_length() == 0)


def _restarts(position_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
    """Whether positions jump between two neighbouring tokens that are both real."""
    if torch.compiler.is_compiling():
        return False  # the answer depends on data, which would break the graph
    jumps = position_ids[:, 1:] - position_ids[:, :-1] != 1
    if attention_mask is not None:
        jumps = jumps & attention_mask[:, 1:].bool() & attention_mask[:, :-1].bool()
    return bool(jumps.any())


class SiQVLForConditionalGeneration(SiQVLPreTrainedModel, GenerationMixin):
    """The backbone with a language head: what gets trained, saved, and generates."""

    _tied_weights_keys = {  # noqa: RUF012
        "lm_head.weight": "model.language_model.embed_tokens.weight"
    }
    # The language model's embeddings are sharded by vocabulary, and a tied head is the same tensor.
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: SiQVLConfig):
        super().__init__(config)
        self.model = SiQVLModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False
        )
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def get_image_features(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """See `SiQVLModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        head_chunk: int | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> SiQVLCausalLMOutput:
        """`SiQVLModel.forward` followed by the head.

        Args:
            labels: [batch, sequence], -100 where nothing is learned; shifted here, not by the
                caller.
            logits_to_keep: 0 for all positions, n for the last n, or a tensor of positions.
            head_chunk: return `log_probs` instead of logits and loss: the log-probability of every
                token with a label but the first of a row, in reading order over the batch. Logits
                exist for these tokens alone, for so many at once; see `token_log_probs`.

        Returns:
            logits [batch, kept, vocab]; loss when `labels` are given (`num_items_in_batch` is
            honoured).

        Raises:
            ValueError: as `SiQVLModel.forward`, or `head_chunk` without labels.
        """
        if head_chunk is not None and labels is None:
            raise ValueError("head_chunk needs labels: log_probs are those of their tokens.")
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            vision_features=vision_features,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return SiQVLCausalLMOutput(
            **self._head(outputs.last_hidden_state, labels, logits_to_keep, head_chunk, **kwargs),
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )

    def _head(
        self,
        hidden: torch.Tensor,
        labels: torch.LongTensor | None,
        logits_to_keep: int | torch.Tensor,
        head_chunk: int | None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """`log_probs`, or `logits` and with labels their `loss`, of hidden states
        [batch, sequence, hidden]; see `forward`."""
        if head_chunk is not None and labels is not None:
            following = labels[:, 1:]
            learned = following != -100
            log_probs = token_log_probs(
                hidden[:, :-1][learned], self.lm_head.weight, following[learned], head_chunk
            )
            return {"log_probs": log_probs}
        logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        if labels is None:
            return {"logits": logits}
        vocabulary = self.config.text_config.vocab_size
        loss = self.loss_function(logits=logits, labels=labels, vocab_size=vocabulary, **kwargs)
        return {"loss": loss, "logits": logits}

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,  # `generate` looks for it in the signature
        is_first_iteration: bool | None = False,
        prompt_tokens: int | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """transformers' own, which knows nothing of pictures in assisted decoding.

        An assistant, which drafts tokens for another model, sees the pictures of the prompt. It is
        told of no first iteration, and where there is none transformers leaves pictures out: it
        would read a prompt with placeholders and no picture. What another SiQ-VL encoded stands in
        that one's space, so the tower's features are projected anew. Where they are of another
        tower, or there are none, a placeholder is a token as any other: a draft may be bad, and is
        no reason to end. Nor is a placeholder among the tokens that were drafted for this model.

        Args:
            prompt_tokens: of these ids the prompt's; drafted ones follow.
        """
        parent: Any = super()
        inputs = parent.prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        ids = inputs.get("input_ids")
        # without a cache, pictures come with every pass
        if ids is None or past_key_values is None or not _starts_a_sequence(ids, past_key_values):
            return inputs
        pictures = (kwargs.get("mm_encoder_outputs") or {}).get("image")
        if not is_first_iteration:
            features = self._features_of(pictures)
            return inputs | (
                {"vision_features": features} if features is not None else self._embedded(ids, None)
            )
        if (
            prompt_tokens is None
            or not (ids[:, prompt_tokens:] == self.config.image_token_id).any()
        ):
            return inputs
        return inputs | self._embedded(ids, pictures, prompt_tokens) | {"mm_encoder_outputs": None}

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Notes for `prepare_inputs_for_generation` where a prompt ends and its drafts begin."""
        parent: Any = super()
        given = inspect.signature(parent._get_candidate_generator).bind(*args, **kwargs).arguments
        generator = parent._get_candidate_generator(*args, **kwargs)
        input_ids, model_kwargs = given["input_ids"], given["model_kwargs"]
        model_kwargs["prompt_tokens"] = input_ids.shape[1]  # now, for assistants have theirs
        return generator

    def _embedded(
        self, ids: torch.Tensor, images: BaseModelOutputWithPooling | None, prompt_tokens: int = 0
    ) -> dict[str, torch.Tensor | None]:
        """Model inputs in which placeholders after the prompt are tokens as any other.

        Raises:
            ValueError: those of the prompt are more or fewer than the pictures' tokens.
        """
        ids = ids.to(self.device)
        embeds = self.get_input_embeddings()(ids)
        if prompt_tokens:
            prompt: Any = ids[:, :prompt_tokens]
            begun = self.model._with_images(prompt, embeds[:, :prompt_tokens], images)
            embeds = torch.cat([begun, embeds[:, prompt_tokens:]], dim=1)
        return {"input_ids": None, "inputs_embeds": embeds}

    def _features_of(self, encoded: BaseModelOutputWithPooling | None) -> torch.Tensor | None:
        """Tower features in what another model's `get_image_features` gave, if they fit this tower.

        Returns:
            [images, patches, vision hidden].
        """
        features = getattr(encoded, "last_hidden_state", None)
        expected = (self.config.patch_grid**2, self.config.vision_config.hidden_size)
        if features is None or features.ndim != 3 or tuple(features.shape[1:]) != expected:
            return None
        return features

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> Any:
        """Lets `generate` take `vision_features`: projected once, before beams expand.

        And `pixel_values=None`, as `forward` does; transformers would call the tower with it.
        """
        if model_kwargs.get("pixel_values") is None:
            model_kwargs.pop("pixel_values", None)
        vision_features = model_kwargs.pop("vision_features", None)
        if vision_features is not None:
            encoded = dict(model_kwargs.get("mm_encoder_outputs") or {})
            if encoded.get("image") is not None:
                raise ValueError(
                    "Images were given more than once: vision_features and mm_encoder_outputs."
                )
            encoded["image"] = self.model.project_vision_features(vision_features)
            model_kwargs["mm_encoder_outputs"] = encoded
        parent: Any = super()
        return parent._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)


__all__ = ["SiQVLForConditionalGeneration", "SiQVLModel", "SiQVLPreTrainedModel"]
