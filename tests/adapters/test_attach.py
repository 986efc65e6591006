"""What adapters are put on, what then learns, and that the model computes what it did."""

from pathlib import Path

import peft
import pytest
import torch

from siqvl.adapters.attach import adapted, attach, is_adapter, lora_config, without_adapters
from siqvl.adapters.frozen_weights import keep_in, linear_layers
from siqvl.adapters.fused_linear import FusedLinear
from siqvl.errors import UserError
from siqvl.model.assemble import assemble, build_on_meta
from siqvl.recipe import Adapter
from siqvl.stages import freeze, part_of

BASE = Path(__file__).parents[2] / "recipes" / "tiny_base"
IDS = torch.arange(100, 124).view(2, 12)


def made():
    torch.manual_seed(0)
    return assemble(str(BASE / "vision"), str(BASE / "language"))[0]


def learning(model) -> set[str]:
    return {name for name, one in model.named_parameters() if one.requires_grad}


def test_the_model_computes_what_it_did_and_draws_nothing() -> None:
    model = made()
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        freeze(model, ["projector"])
        drawn = torch.get_rng_state()
        attach(model, Adapter(rank=4), seed=3)
        assert torch.equal(torch.get_rng_state(), drawn)
        assert torch.equal(model(input_ids=IDS).logits, before)


def test_adapters_and_what_learns_in_full_learn_and_nothing_else() -> None:
    model = made()
    freeze(model, ["projector"])
    count = attach(model, Adapter(rank=4, targets=["q_proj", "down_proj"]))
    names = learning(model)
    layers = model.config.text_config.num_hidden_layers
    adapters = {name for name in names if is_adapter(name)}
    assert len(adapters) == 2 * 2 * layers
    assert {part_of(name) for name in names - adapters} == {"projector"}
    assert {name.split(".")[5] for name in adapters} == {"q_proj", "down_proj"}
    text = model.config.text_config
    width, inner = text.hidden_size, text.intermediate_size
    assert count == layers * 4 * ((width + width) + (inner + width))
    assert all(type(layer) is FusedLinear for layer in adapted(model).values())


def test_a_rank_above_the_width_of_all_its_layers_is_refused_before_it_is_made() -> None:
    model = made()
    text = model.config.text_config
    keys = text.num_key_value_heads * text.hidden_size // text.num_attention_heads
    with pytest.raises(UserError, match=rf"`adapter.rank` is {10**12}, .* has {keys} inputs"):
        attach(model, Adapter(rank=10**12, targets=["k_proj"]))
    assert not adapted(model)
    attach(model, Adapter(rank=text.hidden_size))  # as wide as some layers, wider than none


def test_a_frozen_projector_stays_frozen() -> None:
    model = made()
    freeze(model, [])
    attach(model, Adapter(rank=4))
    assert all(is_adapter(name) for name in learning(model))


def test_pefts_own_reading_of_the_targets_is_the_language_model_alone() -> None:
    """Its `all-linear` is the tower, the projector and the head as well."""
    ours, theirs = made(), made()
    attach(ours, Adapter())
    config = lora_config(Adapter())
    peft.inject_adapter_in_model(config, theirs)
    places = [name for name, _ in theirs.named_modules() if name.endswith("lora_A")]
    assert [name.removesuffix(".lora_A") for name in places] == list(adapted(ours))
    assert all(name.startswith("model.language_model.layers.") for name in places)
    other = made()
    everything = peft.LoraConfig(target_modules="all-linear")
    peft.inject_adapter_in_model(everything, other)
    assert any("vision_tower" in name for name in adapted(other))


def test_the_seed_decides_the_first_weights_on_any_machine_state() -> None:
    found = []
    for seed, state in ((1, 5), (1, 6), (2, 5)):
        model = made()
        torch.manual_seed(state)
        attach(model, Adapter(rank=4), seed=seed)
        found.append(next(iter(adapted(model).values())).lora_A["default"].weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_turned_off_and_on_again() -> None:
    model = made()
    freeze(model, ["projector"])
    with torch.no_grad():
        before = model(input_ids=IDS).logits
        attach(model, Adapter(rank=4))
        for layer in adapted(model).values():
            layer.lora_B["default"].weight.fill_(0.1)
        names, changed = learning(model), model(input_ids=IDS).logits
        with without_adapters(model):
            assert torch.equal(model(input_ids=IDS).logits, before)
        assert torch.equal(model(input_ids=IDS).logits, changed)
    assert not torch.equal(before, changed)
    assert learning(model) == names


def test_on_the_meta_device_too() -> None:
    model = build_on_meta(made().config)
    freeze(model, ["projector"])
    whole = made()
    assert attach(model, Adapter(rank=4)) == attach(whole, Adapter(rank=4))
    keep_in(model, "bf16")
    assert {one.device.type for one in model.parameters()} == {"meta"}


def test_a_layer_that_the_model_has_not_is_refused() -> None:
    model = made()
    for layer in model.model.language_model.layers:
        del layer.mlp.gate_proj
    with pytest.raises(UserError, match=r"`adapter.targets` has gate_proj, which .*\(qwen2\)"):
        attach(model, Adapter())


def test_frozen_weights_are_kept_in_the_precision_of_the_stage() -> None:
    """Those of products alone, and of nothing that learns."""
    model = made()
    freeze(model, ["projector"])
    attach(model, Adapter(rank=4))
    keep_in(model, "bf16")
    rounded = {name for name, one in model.named_parameters() if one.dtype == torch.bfloat16}
    assert rounded
    assert not rounded & learning(model)
    assert all("language_model.layers" in name and "_proj." in name for name in rounded)
    assert len(list(linear_layers(model))) == 7 * model.config.text_config.num_hidden_layers
    assert model.lm_head.weight.dtype == torch.float32


def gradients(model) -> list[torch.Tensor]:
    torch.manual_seed(1)  # of dropout
    model.zero_grad()
    model(input_ids=IDS, labels=IDS).loss.backward()
    return [one.grad for one in model.parameters() if one.grad is not None]


@pytest.mark.parametrize(
    "adapter", [Adapter(rank=4), Adapter(rank=4, dropout=0.5), Adapter(rank=4, targets=["v_proj"])]
)
def test_in_float32_weights_that_bfloat16_holds_take_half_and_give_the_same_bits(adapter) -> None:
    model = made()
    for _, layer in linear_layers(model):
        layer.weight.data = layer.weight.data.bfloat16().float()
    freeze(model, ["projector"])
    attach(model, adapter)
    for layer in adapted(model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    logits, before = model(input_ids=IDS).logits, gradients(model)
    with torch.no_grad(), without_adapters(model):
        reference = model(input_ids=IDS).logits
    keep_in(model, "fp32")
    held = [layer.weight.dtype for _, layer in linear_layers(model)]
    assert set(held) == {torch.bfloat16}
    assert len(held) == 7 * model.config.text_config.num_hidden_layers
    assert torch.equal(model(input_ids=IDS).logits, logits) or adapter.dropout
    assert len(before) > len(adapted(model))
    for one, other in zip(before, gradients(model), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad(), without_adapters(model):
        assert torch.equal(model(input_ids=IDS).logits, reference)


def test_in_float32_weights_that_bfloat16_would_round_stay() -> None:
    model = made()
    freeze(model, ["projector"])
    attach(model, Adapter(rank=4))
    keep_in(model, "fp32")
    assert {one.dtype for one in model.parameters()} == {torch.float32}
