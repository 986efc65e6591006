"""Log-probabilities without logits: against log_softmax over all of them, gradients included."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from siqvl.model.token_log_probs import token_log_probs
from tests.model.tiny_siqvl import conversation, picture

POSITIONS, HIDDEN, VOCABULARY = 37, 24, 501


def made(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(POSITIONS, HIDDEN, dtype=dtype, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, dtype=dtype, generator=generator)
    targets = torch.randint(0, VOCABULARY, (POSITIONS,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -cross_entropy((hidden @ weight.T).double(), targets, reduction="none")


CHUNKS = pytest.mark.parametrize("chunk", [1, 7, 36, 37, 1000])


@CHUNKS
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str
)
def test_values_and_gradients_are_those_of_plain_cross_entropy(
    chunk: int, dtype: torch.dtype, tolerance: float
) -> None:
    hidden, weight, targets = made(dtype)
    upstream = torch.randn(POSITIONS, dtype=dtype, generator=torch.Generator().manual_seed(1))
    expected = plain(hidden.double(), weight.double(), targets)
    wanted = torch.autograd.grad((expected * upstream).sum(), [hidden, weight])
    found = token_log_probs(hidden, weight, targets, chunk)
    torch.testing.assert_close(found.double(), expected, atol=10 * tolerance, rtol=tolerance)
    gradients = torch.autograd.grad((found * upstream).sum(), [hidden, weight])
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=10 * tolerance, rtol=tolerance)
        assert other.abs().max() > 1


def test_gradients_by_finite_differences() -> None:
    hidden, weight, targets = made(torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w: token_log_probs(h, w, targets[:5], 3),
        (hidden[:5].detach().requires_grad_(), weight[:, :].detach().requires_grad_()),
        fast_mode=True,
    )


@pytest.mark.parametrize(("of_hidden", "of_weight"), [(True, False), (False, True)])
def test_a_frozen_side_gets_no_gradient(of_hidden: bool, of_weight: bool) -> None:
    hidden, weight, targets = made()
    hidden.requires_grad_(of_hidden)
    weight.requires_grad_(of_weight)
    token_log_probs(hidden, weight, targets, 8).sum().backward()
    assert (hidden.grad is not None) is of_hidden
    assert (weight.grad is not None) is of_weight
    with torch.no_grad():
        assert not token_log_probs(hidden, weight, targets, 8).requires_grad


def test_extreme_logits_stay_finite() -> None:
    hidden, weight, targets = made()
    found = token_log_probs(hidden * 1e4, weight, targets, 8)
    expected = plain(hidden.double() * 1e4, weight.double(), targets)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1.0)
    assert found.isfinite().all()


def test_no_position_gives_no_value_and_zero_gradients() -> None:
    hidden, weight, targets = made()
    token_log_probs(hidden[:0], weight, targets[:0], 8).sum().backward()
    assert not weight.grad.any()
    assert not hidden.grad.any()


@CHUNKS
def test_under_autocast_as_a_linear_head_would(chunk: int) -> None:
    """Products in bf16, the rest in float32; gradients as far from the truth as autograd's."""
    hidden, weight, targets = made()
    exact = plain(hidden.double(), weight.double(), targets)
    truth = torch.autograd.grad(exact.sum(), [hidden, weight])
    with torch.autocast("cpu", torch.bfloat16):
        found = token_log_probs(hidden, weight, targets, chunk)
        logits = torch.nn.functional.linear(hidden, weight)
        linear = -cross_entropy(logits.float(), targets, reduction="none")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, linear, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(found.sum(), [hidden, weight])
    autograd = torch.autograd.grad(linear.sum(), [hidden, weight])
    for one, other, true in zip(ours, autograd, truth, strict=True):
        assert one.dtype == torch.float32
        assert (one - true).norm() <= 1.2 * (other - true).norm()


def test_at_most_one_chunk_of_logits_is_in_memory() -> None:
    """Saved for the backward pass: the inputs, and one chunk of exponentials."""
    hidden, weight, targets = made()
    log_probs = token_log_probs(hidden, weight, targets, 8)
    node = log_probs.grad_fn
    assert node.kept.shape == (POSITIONS % 8, VOCABULARY)
    assert sum(tensor.numel() for tensor in node.saved_tensors) == (
        hidden.numel() + weight.numel() + 2 * POSITIONS
    )


@pytest.mark.parametrize("chunk", [2, 1024])
def test_the_model_gives_those_of_labels_in_reading_order(model, processor, chunk: int) -> None:
    """Against the model's own logits; the loss too is transformers'."""
    text = [
        processor.apply_chat_template(conversation("what is it?", images, "a red square"))
        for images in (1, 0)
    ]
    inputs = processor(text=text, images=[picture(0)], padding=True, return_tensors="pt")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :3] = -100
    labels[labels == model.config.image_token_id] = -100
    output = model(**inputs, labels=labels)
    scores = output.logits[:, :-1].log_softmax(-1)
    expected = torch.stack(
        [
            scores[row, place, labels[row, place + 1]]
            for row in range(len(labels))
            for place in range(labels.shape[1] - 1)
            if labels[row, place + 1] != -100
        ]
    )
    found = model(**inputs, labels=labels, head_chunk=chunk)
    assert found.logits is None
    assert found.loss is None
    torch.testing.assert_close(found.log_probs, expected)
    torch.testing.assert_close(-found.log_probs.mean(), output.loss)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    ours = torch.autograd.grad(-found.log_probs.mean(), weights, allow_unused=True)
    native = torch.autograd.grad(output.loss, weights, allow_unused=True)
    for name, one, other in zip(names, ours, native, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4, msg=name)


def test_log_probs_need_labels(model, processor) -> None:
    with pytest.raises(ValueError, match="head_chunk needs labels"):
        model(input_ids=torch.tensor([[1, 2]]), head_chunk=8)
