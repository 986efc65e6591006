"""Training: a frozen tower leaves no graph, checkpointing keeps gradients, chosen parts change."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from tests.model.tiny_siqvl import encode, picture


def freeze(module, frozen: bool = True) -> None:
    module.requires_grad_(not frozen)


@pytest.fixture
def inputs(processor):
    inputs = encode(processor, "what?", [picture(0), picture(1)], answer="a red square")
    labels = inputs["input_ids"].clone()
    labels[labels >= 292] = -100
    return {**inputs, "labels": labels}


@pytest.fixture
def tower_outputs(model) -> list[torch.Tensor]:
    outputs = []
    model.model.vision_tower.register_forward_hook(
        lambda module, args, out: outputs.append(out.last_hidden_state)
    )
    return outputs


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_frozen_tower_has_no_graph(model, inputs, tower_outputs, checkpointing, when):
    if when == "before":
        freeze(model.model.vision_tower)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()  # hooks the tower's patch embedding as well
        patches = model.model.vision_tower.embeddings.patch_embedding
        assert patches._forward_hooks
    if when == "after":
        freeze(model.model.vision_tower)
    model(**inputs).loss.backward()
    assert not model.model.vision_tower.training
    assert not tower_outputs[0].requires_grad
    assert tower_outputs[0].grad_fn is None
    assert all(p.grad is None for p in model.model.vision_tower.parameters())
    assert all(p.grad is not None for p in model.model.multi_modal_projector.parameters())


def test_train_keeps_a_frozen_tower_in_eval(model):
    freeze(model.model.vision_tower)
    model.train()
    assert model.training
    assert model.model.language_model.training
    assert not any(module.training for module in model.model.vision_tower.modules())
    freeze(model.model.vision_tower, False)
    model.train()
    assert all(module.training for module in model.model.vision_tower.modules())
    model.eval()
    assert not any(module.training for module in model.modules())


def test_one_trainable_parameter_brings_the_graph_back(model, inputs, tower_outputs):
    freeze(model.model.vision_tower)
    model.train()
    bias = model.model.vision_tower.post_layernorm.bias.requires_grad_()
    model(**inputs).loss.backward()
    assert model.model.vision_tower.training
    assert tower_outputs[0].requires_grad
    assert bias.grad.abs().sum() > 0


def test_no_grad_outside_stays_no_grad(model, inputs):
    with torch.no_grad():
        assert not model(**inputs).loss.requires_grad


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(model, inputs, frozen, reentrant):
    freeze(model.model.vision_tower, frozen)
    model.train()
    model(**inputs).loss.backward()
    plain = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": reentrant}
    )
    if reentrant:
        model.enable_input_require_grads()
    model(**inputs).loss.backward()
    checked = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert plain.keys() == checked.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checked[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    "trained",
    [
        {"multi_modal_projector"},
        {"multi_modal_projector", "language_model"},
        {"multi_modal_projector", "language_model", "vision_tower"},
    ],
)
def test_exactly_the_intended_parts_change(model, inputs, trained):
    for part in ("vision_tower", "multi_modal_projector", "language_model"):
        freeze(getattr(model.model, part), part not in trained)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(**inputs).loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        # A key's bias shifts all scores of a query alike, and softmax cannot tell: no gradient.
        if name.endswith("k_proj.bias") and "vision_tower" in name:
            continue
        changed = not torch.equal(parameter, before[name])
        assert changed == (name.split(".")[1] in trained), name


def test_a_text_only_step_leaves_tower_and_projector_alone(model, processor):
    inputs = encode(processor, "what?", answer="a red square")
    model.train()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for part in (model.model.vision_tower, model.model.multi_modal_projector):
        assert all(p.grad is None for p in part.parameters())


def test_cached_features_train_the_projector_alike(model, inputs):
    freeze(model.model.vision_tower)
    projector = model.model.multi_modal_projector
    model.train()
    model(**inputs).loss.backward()
    reference = [p.grad.clone() for p in projector.parameters()]
    model.zero_grad()
    features = model.model.get_vision_features(inputs.pop("pixel_values"))
    model(**inputs, vision_features=features).loss.backward()
    for parameter, gradient in zip(projector.parameters(), reference, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_one_batch_can_be_learned(model, inputs):
    freeze(model.model.vision_tower)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(60):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.1


def test_bfloat16_runs_and_trains(model, inputs):
    model.to(torch.bfloat16)
    inputs["pixel_values"] = inputs["pixel_values"].float()  # the tower casts pixels itself
    model.train()(**inputs).loss.backward()
    assert model.model.multi_modal_projector.linear.weight.grad.isfinite().all()


def test_a_bf16_tower_feeds_an_fp32_projector(model, inputs):
    reference = model(**inputs).logits
    freeze(model.model.vision_tower)
    model.model.vision_tower.to(torch.bfloat16)
    logits = model(**inputs).logits
    assert logits.dtype == torch.float32
    assert (logits - reference).abs().mean() < 0.1 * reference.abs().mean()


def test_trls_fused_head_sees_the_whole_model(model, inputs):
    """TRL trains base_model + lm_head.weight, bypassing our forward: same loss, same gradients."""
    native = model.train()(**inputs).loss
    native.backward()
    reference = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    add_fused_lm_head(model)
    output = model(**inputs, fused_lm_head=True)
    torch.testing.assert_close(output.loss, native)
    output.loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, reference[name], atol=1e-5, rtol=1e-4, msg=name)
