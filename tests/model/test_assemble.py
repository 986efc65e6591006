"""assemble: both kinds of vision folder, weights and configs, refusals that name what was found."""

import json
import shutil

import pytest
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPVisionConfig,
    LlamaConfig,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen3_5Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    Siglip2Config,
    SiglipImageProcessor,
    SiglipModel,
    SiglipVisionModel,
)

from siqvl.model import (
    SiQVLConfig,
    SiQVLForConditionalGeneration,
    SiQVLProcessor,
    assemble,
    chat_template,
    load_checkpoint,
    read_processor,
)
from siqvl.model.assemble import (
    _generation_config,
    _Part,
    _read_language,
    _read_vision,
)
from tests.model.tiny_siqvl import encode, picture, tiny_text_config, tiny_vision_config


@pytest.fixture
def vision(parts, tmp_path):
    """A copy of the vision folder that a test may damage."""
    return shutil.copytree(parts[0], tmp_path / "vision")


@pytest.fixture
def language(parts, tmp_path):
    return shutil.copytree(parts[1], tmp_path / "language")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def states_equal(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_weights_come_from_the_parts(parts, assembled):
    model, processor = assembled
    assert type(model) is SiQVLForConditionalGeneration
    assert type(processor) is SiQVLProcessor
    assert type(model.model.vision_tower) is SiglipVisionModel
    siglip = SiglipModel.from_pretrained(parts[0]).vision_model.state_dict()
    tower = model.model.vision_tower.state_dict()
    assert set(siglip) - set(tower) == {key for key in siglip if key.startswith("head.")}
    assert all(torch.equal(tower[key], siglip[key]) for key in tower)
    qwen2 = Qwen2ForCausalLM.from_pretrained(parts[1])
    assert states_equal(model.model.language_model, qwen2.model)
    assert torch.equal(model.lm_head.weight, qwen2.lm_head.weight)
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())
    assert not any(module.training for module in model.modules())


def test_a_processor_is_read_without_weights(vision, language, assembled):
    """It is the one that comes with the model, from folders that hold no weights."""
    for folder in (vision, language):
        for file in folder.glob("*.safetensors"):
            file.unlink()
    found, expected = read_processor(vision, language, local_files_only=True), assembled[1]
    assert found.num_image_tokens == expected.num_image_tokens
    assert found.chat_template == expected.chat_template
    assert found.tokenizer.get_vocab() == expected.tokenizer.get_vocab()
    other = read_processor(vision, language, system_prompt="Be brief.")
    assert other.chat_template == chat_template("Be brief.")


def test_a_random_tower_is_drawn_by_the_seed_and_the_rest_is_read(parts, assembled):
    torch.manual_seed(0)
    model, _ = assemble(*parts, random_tower=True)
    trained = assembled[0].model
    tower = model.model.vision_tower
    assert type(tower) is SiglipVisionModel
    assert tower.state_dict().keys() == trained.vision_tower.state_dict().keys()
    drawn = [name for name, weight in tower.named_parameters() if weight.dim() > 1]
    theirs = dict(trained.vision_tower.named_parameters())
    assert not any(torch.equal(tower.get_parameter(name), theirs[name]) for name in drawn)
    assert states_equal(model.model.language_model, trained.language_model)
    torch.manual_seed(0)
    assert states_equal(assemble(*parts, random_tower=True)[0].model.vision_tower, tower)
    torch.manual_seed(1)
    assert not states_equal(assemble(*parts, random_tower=True)[0].model.vision_tower, tower)


def test_a_vision_half_alone_serves_as_well(parts, vision, assembled):
    shutil.rmtree(vision)
    SiglipModel.from_pretrained(parts[0]).vision_model.save_pretrained(vision)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(vision)
    assert json.loads((vision / "config.json").read_text())["model_type"] == "siglip_vision_model"
    model, _ = assemble(vision, parts[1])
    assert states_equal(model.model.vision_tower, assembled[0].model.vision_tower)


def test_loading_reports_nothing_unexpected(parts, caplog, capfd):
    assemble(*parts)
    assert "UNEXPECTED" not in caplog.text
    assert "MISSING" not in caplog.text + capfd.readouterr().err


def test_the_gain_is_the_rms_of_the_text_embeddings(parts, model):
    embeddings = Qwen2ForCausalLM.from_pretrained(parts[1]).model.embed_tokens.weight
    expected = (embeddings.square().sum() / embeddings.numel()).sqrt().item()
    norm = model.model.multi_modal_projector.norm
    assert norm.weight.tolist() == pytest.approx([expected] * 32, rel=1e-5)
    assert not norm.bias.any()


def test_from_configs_alone(parts, vision, language):
    for folder in (vision, language):
        for file in folder.glob("*.safetensors"):
            file.unlink()
    torch.manual_seed(0)
    model, processor = assemble(vision, language, init="config")
    assert states_equal(model, model)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert model.lm_head.weight.detach().std() == pytest.approx(0.02, rel=0.05)
    inputs = encode(processor, "what?", [picture(0)])
    assert model(**inputs).logits.isfinite().all()
    torch.manual_seed(1)
    other, _ = assemble(vision, language, init="config")
    assert not torch.equal(other.lm_head.weight, model.lm_head.weight)
    torch.manual_seed(0)
    again, _ = assemble(vision, language, init="config")
    assert states_equal(again, model)


@pytest.mark.parametrize("options", [{}, {"init": "config"}, {"random_tower": True}])
def test_no_folder_of_this_machine_is_saved(parts, tmp_path, options):
    """A published one would show it to everybody, and equal models would save other files."""
    model, processor = assemble(*parts, **options)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for path in tmp_path.glob("*.json"):
        assert str(parts[0].parent) not in path.read_text(), path.name


def test_seeded_assembly_repeats(parts):
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        models.append(assemble(*parts)[0])
    assert states_equal(*models)


@pytest.mark.parametrize("init", ["pretrained", "config"])
def test_dtype_and_attention(parts, init):
    model, _ = assemble(*parts, init=init, dtype="bfloat16", attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.dtype == torch.bfloat16
    for part in (model, model.model.vision_tower, model.model.language_model):
        assert part.config._attn_implementation == "eager"
    again, _ = assemble(*parts, init=init, dtype=torch.float16)
    assert again.dtype == torch.float16
    assert again.config._attn_implementation == "sdpa"


def test_pixel_shuffle_arguments(parts):
    model, processor = assemble(*parts, pixel_shuffle_factor=4)
    assert (model.config.tokens_per_image, processor.num_image_tokens) == (1, 1)
    model, processor = assemble(*parts, max_image_tokens=4)
    assert (model.config.tokens_per_image, processor.num_image_tokens) == (4, 4)
    with pytest.raises(ValueError, match=r"4x4.*max_image_tokens=3 "):
        assemble(*parts, max_image_tokens=3)


def test_special_tokens_and_generation(assembled):
    model, processor = assembled
    ids = processor.tokenizer.get_vocab()
    generation = model.generation_config
    assert generation.eos_token_id == [ids["<|im_end|>"], ids["<|endoftext|>"]]
    assert generation.pad_token_id == ids["<|endoftext|>"]
    assert not generation.do_sample
    assert processor.tokenizer.eos_token == "<|im_end|>"
    assert processor.tokenizer.pad_token == "<|endoftext|>"
    assert model.config.image_token_id == ids["<|image_pad|>"]


@pytest.mark.parametrize("prompt", [None, "", "You look at pictures."])
def test_system_prompt_is_saved_with_the_checkpoint(parts, tmp_path, prompt):
    model, processor = assemble(*parts, system_prompt=prompt)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == chat_template(prompt)
    text = load_checkpoint(tmp_path)[1].apply_chat_template([{"role": "user", "content": "a"}])
    turn = "<|im_start|>user\na<|im_end|>\n"
    if prompt == "":
        assert text == turn
    else:
        expected = prompt or "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
        assert text == f"<|im_start|>system\n{expected}<|im_end|>\n{turn}"


@pytest.mark.parametrize("config", [CLIPVisionConfig(), Siglip2Config(), tiny_text_config()])
def test_another_vision_family_is_named(parts, tmp_path, config):
    config.save_pretrained(tmp_path)
    pattern = (
        f"has model_type '{config.model_type}', which is no tower that can be used here; supported "
        r"are SigLIP and SigLIP 2 of a fixed resolution \('siglip'\)"
    )
    with pytest.raises(ValueError, match=pattern):
        assemble(tmp_path, parts[1])


def test_siglip2_of_any_size_is_said_to_be_that(parts, tmp_path):
    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'siglip2', .* this is SigLIP 2 NaFlex, which reads"):
        assemble(tmp_path, parts[1])


@pytest.mark.parametrize(
    "config",
    [
        *(BertConfig(), tiny_vision_config(), LlamaConfig()),
        *(Qwen2VLConfig(), Qwen3MoeConfig(), Qwen3_5Config(), Qwen3NextConfig()),
    ],
    ids=lambda config: config.model_type,
)
def test_another_language_family_is_named(parts, tmp_path, config):
    config.save_pretrained(tmp_path)
    pattern = (
        f"has model_type '{config.model_type}', which is no language model that can be trained "
        r"here; supported are Qwen2/Qwen2\.5 \('qwen2'\) and Qwen3 \('qwen3'\)\.$"
    )
    with pytest.raises(ValueError, match=pattern):
        assemble(parts[0], tmp_path)


def test_missing_folders_and_files_are_named(parts, vision, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no vision model: there is no such folder"):
        assemble(tmp_path / "nowhere", parts[1])
    with pytest.raises(ValueError, match=r"nowhere is no language model"):
        assemble(parts[0], str(tmp_path / "nowhere"))
    (vision / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=rf"{vision} has no preprocessor_config\.json"):
        assemble(vision, parts[1])
    (vision / "config.json").unlink()
    with pytest.raises(ValueError, match=rf"{vision} .* no config\.json"):
        assemble(vision, parts[1])


def test_a_picture_size_the_tower_does_not_read(parts, vision):
    edit(vision / "preprocessor_config.json", size={"height": 32, "width": 32})
    with pytest.raises(ValueError, match=r"'height': 32.*the tower reads 16x16"):
        assemble(vision, parts[1])


def test_a_tokenizer_without_the_placeholder(parts, language):
    tokenizer = json.loads((language / "tokenizer.json").read_text())
    text = json.dumps(tokenizer).replace("<|image_pad|>", "<|other_pad|>")
    (language / "tokenizer.json").write_text(text)
    config = (language / "tokenizer_config.json").read_text()
    (language / "tokenizer_config.json").write_text(
        config.replace("<|image_pad|>", "<|other_pad|>")
    )
    with pytest.raises(ValueError, match=r"has no token '<\|image_pad\|>'"):
        assemble(parts[0], language)


def test_a_tokenizer_larger_than_the_embeddings(parts, language):
    tokenizer = AutoTokenizer.from_pretrained(language)
    tokenizer.add_tokens([f"extra{number}" for number in range(100)])
    tokenizer.save_pretrained(language)
    with pytest.raises(ValueError, match=rf"has {len(tokenizer)} tokens, its model only 320"):
        assemble(parts[0], language)


@pytest.mark.parametrize("which", ["vision", "language"])
def test_pickled_weights_are_refused(parts, vision, language, which):
    folder = {"vision": vision, "language": language}[which]
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        assemble(vision, language)


@pytest.mark.parametrize("which", ["vision", "language"])
def test_lacking_weights_are_refused(parts, vision, language, which):
    if which == "vision":
        edit_layers = {"vision_config": tiny_vision_config(num_hidden_layers=3).to_dict()}
        edit(vision / "config.json", **edit_layers)
    else:
        edit(language / "config.json", num_hidden_layers=3, layer_types=["full_attention"] * 3)
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights, first: .*layers\.2"):
        assemble(vision, language)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
@pytest.mark.parametrize("which", ["vision", "language"])
def test_damaged_weights_are_refused(vision, language, which, kept):
    folder = {"vision": vision, "language": language}[which]
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{which}: its weights are damaged .*; copy them again"):
        assemble(vision, language)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"])
def test_damaged_files_of_a_tokenizer_are_refused(vision, language, content):
    (language / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ValueError, match="language: a JSON file of it is damaged"):
        assemble(vision, language)


def test_wrong_words_are_refused(parts):
    with pytest.raises(ValueError, match="init must be 'pretrained' or 'config', got 'random'"):
        assemble(*parts, init="random")
    with pytest.raises(ValueError, match=r"dtype must be .*, got 'float99'"):
        assemble(*parts, dtype="float99")
    with pytest.raises(ValueError, match=r"dtype must be .*, got 'int8'"):
        assemble(*parts, dtype="int8")


def test_real_files_make_the_real_shapes(real_data, tmp_path):
    """The published configs, tokenizer and preprocessor; the weights are not at hand."""
    vision, language = tmp_path / "vision", tmp_path / "language"
    configs = real_data / "model_configs"
    shutil.copytree(real_data / "qwen2.5_tokenizer", language)
    shutil.copy(configs / "Qwen2.5-0.5B-Instruct.config.json", language / "config.json")
    vision.mkdir()
    name = "TRANSCRIBED_siglip-so400m-patch14-384"
    shutil.copy(configs / f"{name}.config.json", vision / "config.json")
    shutil.copy(configs / f"{name}.preprocessor_config.json", vision / "preprocessor_config.json")
    with pytest.raises(OSError, match="safetensors"):
        assemble(vision, language)

    vision_config, image_processor = _read_vision(_Part(vision, None, False))
    text_config, tokenizer = _read_language(_Part(language, None, False))
    config = SiQVLConfig(vision_config=vision_config, text_config=text_config)
    assert config.tokens_per_image == 81
    assert len(tokenizer) == 151_665
    assert config.text_config.vocab_size == 151_936
    assert tokenizer.get_vocab()["<|image_pad|>"] == config.image_token_id == 151_655
    assert image_processor(picture(0), return_tensors="pt")["pixel_values"].shape[-2:] == (384, 384)
    generation = _generation_config(tokenizer)
    published = json.loads((configs / "Qwen2.5-0.5B-Instruct.generation_config.json").read_text())
    assert generation.eos_token_id == published["eos_token_id"]
    assert generation.pad_token_id == published["pad_token_id"]
