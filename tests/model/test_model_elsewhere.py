"""What vLLM's transformers backend asks of a model, one requirement after the other.

Read in vllm v0.32's docs/models/supported_models.md ("Writing custom models") and in
vllm/model_executor/models/transformers (base.py 03bf3c9, multimodal.py 03e3bc8, causal.py 0564ab2).
vLLM itself is not here: a small engine takes its place that calls the model as those files do, with
rows of all requests one behind the other and keys that the attention function keeps itself. What it
writes is compared with `generate`, one request at a time, by transformers' eager attention.
"""

import json
import re
from dataclasses import dataclass, field
from operator import attrgetter

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModel, AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from siqvl.model import SiQVLForConditionalGeneration, load_checkpoint
from tests.model.tiny_siqvl import conversation, picture

NAME = "kept_keys"
SIZES = ((16, 16), (1, 10_000), (480, 640), (10_000, 10_000))


@dataclass
class KeptKeys:
    """The attention of one layer: keys and values of every request, as vLLM has them in pages."""

    step: list[tuple[int, int]] = field(default_factory=list)  # request and its new tokens
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """[heads, all new tokens, size] of queries, and fewer heads of keys -> the same."""
        found, start = [], 0
        for request, count in self.step:
            new = slice(start, start + count)
            start += count
            keys, values = (
                torch.cat([kept[request], fresh[:, new]], 1) if request in kept else fresh[:, new]
                for kept, fresh in ((self.keys, key), (self.values, value))
            )
            self.keys[request], self.values[request] = keys, values
            groups = query.shape[0] // keys.shape[0]
            keys, values = (one.repeat_interleave(groups, 0) for one in (keys, values))
            scores = query[:, new] @ keys.transpose(1, 2) * scaling
            ahead = torch.ones(count, keys.shape[1], dtype=torch.bool).triu(
                keys.shape[1] - count + 1
            )
            found.append(scores.masked_fill(ahead, -torch.inf).softmax(-1) @ values)
        assert start == query.shape[1]
        return torch.cat(found, 1)


def kept_keys_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float = 1.0,
    attention_instances: dict[int, KeptKeys] | None = None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """As vLLM's: it takes [1, heads, tokens, size], and knows rows by itself."""
    assert attention_mask is None
    assert attention_instances is not None, "kwargs do not reach the attention"
    assert query.shape[0] == 1
    instance = attention_instances[module.layer_idx]
    return instance(query[0], key[0], value[0], scaling).transpose(0, 1)[None], None


class Engine:
    """Loads a checkpoint as vLLM does: the class by `auto_map`, empty, then weights by name."""

    def __init__(self, checkpoint) -> None:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
        self.text = config.get_text_config()
        self.text._attn_implementation = NAME  # of the language model; the tower keeps its own
        with torch.device("meta"):
            self.model = AutoModel.from_config(config, trust_remote_code=True)
        self.model.to_empty(device="cpu")
        self._load(checkpoint)
        self.model.eval()
        layers = range(self.text.num_hidden_layers)
        self.instances = {layer: KeptKeys() for layer in layers}
        self.head = self.model.get_input_embeddings().weight  # tied
        self.known: dict[int, int] = {}

    def _load(self, checkpoint) -> None:
        """`model.` names the backbone; what the constructor computes is computed again."""
        with safe_open(checkpoint / "model.safetensors", "pt") as file:
            weights = {
                name.removeprefix("model."): file.get_tensor(name)
                for name in file.keys()  # noqa: SIM118 - it is no mapping
                if not name.startswith("lm_head.")
            }
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert (missing, unexpected) == ([], [])
        fresh = type(self.model)(self.model.config)
        for name, buffer in fresh.named_buffers():
            attrgetter(name)(self.model).copy_(buffer)

    def embedded(self, ids: torch.Tensor, pixels: torch.Tensor | None) -> torch.Tensor:
        """Embeddings of a prompt with the pictures' in the places of their placeholders."""
        embeds = self.model.get_input_embeddings()(ids)
        if pixels is not None:
            seen = self.model.get_image_features(pixels, return_dict=True).pooler_output
            seen = seen.reshape(-1, seen.shape[-1])
            places = ids == self.model.config.image_token_id
            assert int(places.sum()) == len(seen)
            embeds[places] = seen
        return embeds

    def step(self, work: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """New embeddings of some requests, all in one row -> scores of what follows each."""
        counts = [(request, len(embeds)) for request, embeds in work.items()]
        for instance in self.instances.values():
            instance.step = counts
        positions = [
            torch.arange(self.known.get(request, 0), self.known.get(request, 0) + count)
            for request, count in counts
        ]
        outputs = self.model(
            input_ids=None,
            inputs_embeds=torch.cat(list(work.values()))[None],
            use_cache=False,
            position_ids=torch.cat(positions)[None],
            attention_instances=self.instances,
            return_dict=False,
        )
        hidden = outputs[0][0]
        ends = torch.tensor([count for _, count in counts]).cumsum(0) - 1
        for request, count in counts:
            self.known[request] = self.known.get(request, 0) + count
        logits = hidden[ends] @ self.head.T
        return dict(zip(work, logits, strict=True))


@pytest.fixture(autouse=True)
def attention():
    ALL_ATTENTION_FUNCTIONS.register(NAME, kept_keys_attention)


@pytest.fixture
def checkpoint(family_checkpoint):
    """Of every family of decoders."""
    return family_checkpoint


@pytest.fixture
def engine(checkpoint) -> Engine:
    return Engine(checkpoint)


def asked(processor, number: int) -> dict:
    """Questions with no, one and two pictures, of different lengths."""
    pictures = [picture(number * 10 + seed) for seed in range(number % 3)]
    text = processor.apply_chat_template(
        conversation("what is " * (number + 1), len(pictures)), add_generation_prompt=True
    )
    return processor(text=text, images=pictures or None, return_tensors="pt")


@torch.no_grad()
def test_flattened_rows_write_what_generate_writes(checkpoint, engine) -> None:
    """Requests come while others are written, long prompts in pieces: six tokens of each."""
    model, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    inputs = {number: asked(processor, number) for number in range(6)}
    whole = {
        number: engine.embedded(one["input_ids"][0], one.get("pixel_values"))
        for number, one in inputs.items()
    }
    written: dict[int, list[int]] = {number: [] for number in inputs}
    banned = model.config.image_token_id
    waiting, running = sorted(whole), {}
    while waiting or running:
        if waiting:
            running[waiting.pop(0)] = 0  # tokens of its prompt that were read
        work = {}
        for number, read in running.items():
            piece = 7 if number % 2 else 1000  # cut within a picture, too
            if read < len(whole[number]):
                work[number] = whole[number][read : read + piece]
                running[number] = read + len(work[number])
            else:
                last = torch.tensor(written[number][-1:])
                work[number] = engine.model.get_input_embeddings()(last)
        logits = engine.step(work)
        for number in work:
            if running[number] >= len(whole[number]):
                logits[number][banned] = -torch.inf
                written[number].append(int(logits[number].argmax()))
        running = {number: read for number, read in running.items() if len(written[number]) < 6}
    for number, one in inputs.items():
        ids = model.generate(**one, max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert written[number] == ids[0, one["input_ids"].shape[1] :].tolist(), number
    assert len({tuple(ids) for ids in written.values()}) > 1


@torch.no_grad()
def test_scores_are_those_of_the_whole_model(checkpoint, engine) -> None:
    model, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    inputs = [asked(processor, number) for number in range(6)]
    work = {
        number: engine.embedded(one["input_ids"][0], one.get("pixel_values"))
        for number, one in enumerate(inputs)
    }
    logits = engine.step(work)
    for number, one in enumerate(inputs):
        expected = model(**one).logits[0, -1]
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(logits[number], expected, rtol=0, atol=1e-4)


def test_its_class_is_found_by_the_configuration_and_says_it_can(checkpoint, engine) -> None:
    auto_map = json.loads((checkpoint / "config.json").read_text())["auto_map"]
    found = get_class_from_dynamic_module(auto_map["AutoModel"], str(checkpoint))
    assert found.__module__.startswith("transformers_modules.")
    assert found.__name__ == type(engine.model).__name__ == "SiQVLModel"
    for kind in (found, type(engine.model)):
        assert kind._supports_attention_backend
        assert kind.is_backend_compatible()


def test_parts_are_found_by_the_names_that_are_looked_for(family, engine) -> None:
    model = engine.model
    assert type(model.get_decoder()) is type(AutoModel.from_pretrained(family.language))
    assert model.get_decoder() is model.language_model
    assert model.get_encoder(modality="image") is model.vision_tower
    config = model.config
    assert config.get_text_config() is config.text_config
    assert config != config.get_text_config()  # which makes it multi-modal
    assert config.tie_word_embeddings
    assert config.text_config.tie_word_embeddings


def test_every_weight_has_the_prefix_of_the_backbone(checkpoint, engine) -> None:
    assert engine.model.base_model_prefix == "model"
    children = {name for name, _ in engine.model.named_children()}
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert names
    for name in names:
        assert re.fullmatch(r"lm_head\.weight|model\.(\w+)\..+", name), name
        assert name == "lm_head.weight" or name.split(".")[1] in children


def test_a_request_may_have_as_many_image_tokens_as_its_processor_says(checkpoint) -> None:
    """Memory is planned by this before a picture is opened."""
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    said = processor._get_num_multimodal_tokens(image_sizes=SIZES)
    for (height, width), tokens, patches in zip(
        SIZES, said["num_image_tokens"], said["num_image_patches"], strict=True
    ):
        if height * width > 1_000_000:
            continue  # the same for every size, as those before show
        image = picture(0).resize((width, height))
        found = processor(text=processor.image_token, images=[image], return_tensors="pt")
        marks = found["input_ids"] == processor.image_token_id
        assert int(marks.sum()) == tokens
        assert len(found["pixel_values"]) == patches
    assert len(set(said["num_image_tokens"])) == 1
    assert processor._get_num_multimodal_tokens()["num_image_tokens"] is None


def test_placeholders_are_told_by_offset_and_by_token_type(checkpoint) -> None:
    """Since transformers 5.15 vLLM takes what each placeholder became from the offsets; before, it
    takes the marks of token types. A dummy prompt has nothing between its pictures."""
    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    for text in (f"a {processor.image_token} b {processor.image_token} c", 2 * "<|image_pad|>"):
        found = processor(
            text=text,
            images=[picture(0), picture(1)],
            return_text_replacement_offsets=True,
            return_mm_token_type_ids=True,
            return_tensors="pt",
        )
        offsets = found["text_replacement_offsets"][0]
        assert [one["type"] for one in offsets] == ["image", "image"]
        ids = [
            processor.tokenizer.encode(one["replacement"], add_special_tokens=False)
            for one in offsets
        ]
        count = processor.num_image_tokens
        assert ids == [[processor.image_token_id] * count] * 2
        marks = found["input_ids"] == processor.image_token_id
        assert torch.equal(found["mm_token_type_ids"] == 1, marks)
        assert int(marks.sum()) == 2 * count


def test_the_plan_of_tensor_parallelism_names_layers_that_are_there(engine) -> None:
    """Patterns are matched as regular expressions from the backbone on; styles that vLLM knows."""
    plan = {f"model.{pattern}": style for pattern, style in (engine.model.tp_plan or {}).items()}
    linear = [
        f"model.{name}"
        for name, module in engine.model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("language_model.")
    ]
    styles = {
        name: next((style for pattern, style in plan.items() if re.match(pattern, name)), None)
        for name in linear
    }
    kinds = {name.rpartition(".")[2]: style for name, style in styles.items()}
    columns = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"), "colwise")
    assert kinds == columns | {"o_proj": "rowwise", "down_proj": "rowwise"}
    assert len(linear) == 7 * engine.text.num_hidden_layers


def test_the_pipeline_is_cut_in_one_list_of_layers(engine) -> None:
    """By a plan, or in the order in which the decoder declares its parts."""
    model = engine.model
    if model.supports_pp_plan:
        module, names = model, list(model._pp_plan)
    else:
        module = model.get_decoder()
        names = [
            name
            for name, child in module.named_children()
            if next(child.parameters(), None) is not None
        ]
    lists = [name for name in names if isinstance(attrgetter(name)(module), nn.ModuleList)]
    assert [name.rpartition(".")[2] for name in names] == ["embed_tokens", "layers", "norm"]
    assert [name.rpartition(".")[2] for name in lists] == ["layers"]
    assert len(attrgetter(lists[0])(module)) == engine.text.num_hidden_layers


@torch.no_grad()
def test_the_class_that_loads_it_alone_gives_the_same_features(checkpoint, engine) -> None:
    model: SiQVLForConditionalGeneration = load_checkpoint(checkpoint)[0]
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ours = model.get_image_features(pixels, return_dict=True).pooler_output
    theirs = engine.model.get_image_features(pixels, return_dict=True).pooler_output
    assert torch.equal(ours, theirs)
    assert ours.shape[:2] == (3, model.config.tokens_per_image)
