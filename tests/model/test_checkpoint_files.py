"""What a checkpoint holds, and who can load it: we, a process without siqvl, TRL, a pipeline."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    pipeline,
)
from trl.trainer.utils import create_model_from_path

from siqvl.model import SiQVLModel, assemble, load_checkpoint
from tests.model.tiny_siqvl import conversation, encode, picture

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    # The code, so that the folder loads where siqvl is not installed.
    "configuration.py",
    "modeling.py",
    "processing.py",
    "projector.py",
    "token_log_probs.py",
}


def sample(processor) -> dict:
    return encode(processor, "what?", [picture(0), picture(1)])


def test_the_exact_set_of_files(checkpoint):
    assert {path.name for path in checkpoint.iterdir()} == FILES


def test_the_auto_map_names_every_class(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration.SiQVLConfig",
        "AutoModel": "modeling.SiQVLModel",
        "AutoModelForImageTextToText": "modeling.SiQVLForConditionalGeneration",
        "AutoModelForMultimodalLM": "modeling.SiQVLForConditionalGeneration",
    }
    assert config["architectures"] == ["SiQVLForConditionalGeneration"]
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    assert processor["auto_map"] == {"AutoProcessor": "processing.SiQVLProcessor"}
    assert processor["num_image_tokens"] == 4


def test_no_local_path_is_written(checkpoint, parts):
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        assert str(parts[0].parent) not in (checkpoint / name).read_text()


def test_equal_models_save_equal_files(parts, tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(0)
        model, processor = assemble(*parts)
        model.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_loading_and_saving_again_gives_the_same_files(checkpoint, tmp_path):
    model, processor = load_checkpoint(checkpoint)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    for file in FILES:
        assert (tmp_path / file).read_bytes() == (checkpoint / file).read_bytes(), file


def test_tied_weights_are_stored_once_and_stay_tied(checkpoint):
    with safe_open(checkpoint / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "lm_head.weight" not in names
    assert "model.language_model.embed_tokens.weight" in names
    model, _ = load_checkpoint(checkpoint)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 5] = 7
    assert model.lm_head.weight[3, 5] == 7


def test_untied_weights_stay_apart(parts, tmp_path):
    model, processor = assemble(*parts)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(320, 32))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert again.lm_head.weight is not again.get_input_embeddings().weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


@torch.no_grad()
def test_saving_and_loading_changes_nothing(parts, tmp_path):
    model, processor = assemble(*parts)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, its_processor = load_checkpoint(tmp_path)
    one, other = model.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert torch.equal(model(**sample(processor)).logits, again(**sample(its_processor)).logits)
    assert again.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()
    assert not again.training


def test_load_checkpoint_takes_dtype_and_attention(checkpoint):
    model, _ = load_checkpoint(checkpoint, dtype="bfloat16", attn_implementation="eager")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.vision_tower.config._attn_implementation == "eager"


def copy_of(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_load_checkpoint_refuses_other_folders(checkpoint, parts, tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="holds model_type 'qwen2', expected 'siqvl'"):
        load_checkpoint(parts[1])
    folder = copy_of(checkpoint, tmp_path)
    edit(folder / "processor_config.json", num_image_tokens=9)
    with pytest.raises(ValueError, match="makes 9 tokens an image, the model expects 4"):
        load_checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no \*\.safetensors file"):
        load_checkpoint(folder)


def test_load_checkpoint_refuses_lacking_weights(checkpoint, tmp_path):
    folder = copy_of(checkpoint, tmp_path)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    text |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    edit(folder / "config.json", text_config=text)
    with pytest.raises(
        ValueError, match=r"lacks 12 of the model's weights, first: model\.language"
    ):
        load_checkpoint(folder)


@torch.no_grad()
def test_auto_classes_in_this_process(checkpoint):
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(model).__module__ == "siqvl.model.modeling"
    assert type(processor).__module__ == "siqvl.model.processing"
    assert type(AutoModelForMultimodalLM.from_pretrained(checkpoint)) is type(model)
    backbone = AutoModel.from_pretrained(checkpoint)
    assert type(backbone) is SiQVLModel
    inputs = sample(processor)
    hidden = backbone(**inputs).last_hidden_state
    assert torch.equal(model.lm_head(hidden), model(**inputs).logits)


FRESH = """
    import sys, json, torch
    sys.modules["siqvl"] = None  # importing it raises, even where it is installed for development
    try:
        import siqvl.model
    except ModuleNotFoundError:
        pass
    else:
        raise SystemExit("siqvl is importable here")
    from transformers import (
        AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor
    )
    folder = sys.argv[1]
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    inputs = torch.load(sys.argv[2], weights_only=True)
    text = processor.apply_chat_template(json.loads(sys.argv[4]), add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**inputs).logits
        backbone = AutoModel.from_pretrained(folder, trust_remote_code=True)
        assert torch.equal(model.lm_head(backbone(**inputs).last_hidden_state), logits)
        other = AutoModelForMultimodalLM.from_pretrained(folder, trust_remote_code=True)
        assert torch.equal(other(**inputs).logits, logits)
    generated = model.generate(**inputs, max_new_tokens=4)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    assert not [name for name in sys.modules if name.startswith("siqvl.")]
    torch.save({"logits": logits, "generated": generated, "tied": tied, "text": text}, sys.argv[3])
    model.save_pretrained(sys.argv[5])
    processor.save_pretrained(sys.argv[5])
"""


def run_fresh(script: str, tmp_path, *arguments) -> str:
    """What a script prints where siqvl cannot be imported: isolated, with a cache of its own."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    keep = {key: os.environ[key] for key in ("PATH", "OMP_NUM_THREADS") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=home,
        env={**keep, "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.integration
@torch.no_grad()
def test_a_fresh_process_without_siqvl(checkpoint, tmp_path):
    model, processor = load_checkpoint(checkpoint)
    inputs = dict(sample(processor))
    torch.save(inputs, tmp_path / "inputs.pt")
    messages = json.dumps(conversation("what?", 2))
    saved = tmp_path / "saved"
    run_fresh(
        FRESH, tmp_path, checkpoint, tmp_path / "inputs.pt", tmp_path / "out.pt", messages, saved
    )
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(out["logits"], model(**inputs).logits)
    assert torch.equal(out["generated"], model.generate(**inputs, max_new_tokens=4))
    assert out["tied"] is True
    assert out["text"] == processor.apply_chat_template(
        json.loads(messages), add_generation_prompt=True
    )
    # What it saves is a checkpoint again, with the same code.
    assert {path.name for path in saved.iterdir()} == FILES
    again, _ = load_checkpoint(saved)
    assert torch.equal(again(**inputs).logits, out["logits"])


def test_importing_siqvl_alone_does_not_import_torch():
    script = "import sys, siqvl; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_trl_reloads_it_as_dpo_does(checkpoint):
    """DPOTrainer(ref_model=None) calls this with the path of the policy."""
    model, _ = load_checkpoint(checkpoint)
    assert model.config._name_or_path == str(checkpoint)
    reference = create_model_from_path(model.config._name_or_path, dtype="float32")
    one, other = model.state_dict(), reference.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert reference.lm_head.weight is reference.get_input_embeddings().weight


def test_pipeline(checkpoint):
    model, processor = load_checkpoint(checkpoint)
    pipe = pipeline("image-text-to-text", model=model, processor=processor)
    messages = conversation("what?", 1)
    messages[0]["content"][0] = {"type": "image", "image": picture(0)}
    answer = pipe(text=messages, max_new_tokens=4, return_full_text=False)[0]["generated_text"]
    inputs = encode(processor, "what?", [picture(0)])
    ids = model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    assert answer == processor.decode(ids, skip_special_tokens=True)


ANY_TO_ANY = """
    import sys, json
    from importlib.util import find_spec
    from PIL import Image
    from transformers import pipeline
    from transformers.pipelines import any_to_any
    sys.modules["siqvl"] = None
    if find_spec("torchvision") is None:  # asked for, whether or not a processor uses it
        any_to_any.requires_backends = lambda *_: None
    pipe = pipeline("any-to-any", model=sys.argv[1], trust_remote_code=True, dtype="float32")
    messages = json.loads(sys.argv[2])
    messages[0]["content"][0]["image"] = Image.open(sys.argv[3])
    (found,) = pipe(text=messages, max_new_tokens=4, return_full_text=False)
    inputs = pipe.processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    written = pipe.model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    expected = pipe.processor.decode(written, skip_special_tokens=True)
    assert found["generated_text"] == expected, (found, expected)
    print(type(pipe).__name__, type(pipe.model).__name__)
"""


@pytest.mark.integration
def test_the_any_to_any_pipeline_without_siqvl(checkpoint, tmp_path):
    picture(0).save(tmp_path / "picture.png")
    messages = json.dumps(conversation("what?", 1))
    out = run_fresh(ANY_TO_ANY, tmp_path, checkpoint, messages, tmp_path / "picture.png")
    assert out.split() == ["AnyToAnyPipeline", "SiQVLForConditionalGeneration"]
