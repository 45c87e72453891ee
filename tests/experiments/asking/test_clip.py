"""CLIP's text tower by name, from a folder: loaded, given the questions, and written down by its name."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

import pruning
from experiments import evaluate
from experiments.asking import clip
from experiments.named.presets import ModelError
from experiments.parameters.load import load_parameters
from pruning.methods.cdpruner import segments
from tests.experiments import workspace
from tests.tiny_models import CLIP
from tests.tiny_processors import WORDS

ROOM = 8  # positions of the text tower, start and end token among them


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a tiny CLIP in `clip`."""
    monkeypatch.chdir(tmp_path)
    words = {word: number for number, word in enumerate([*WORDS, "<unk>", "<start>", "<end>"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<start>", eos_token="<end>"
    ).save_pretrained(tmp_path / "clip")
    torch.manual_seed(0)
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": len(words), "max_position_embeddings": ROOM, "eos_token_id": words["<end>"]}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=CLIP, projection_dim=8))
    model.save_pretrained(tmp_path / "clip")
    return workspace.make(tmp_path, budgets=[0.5], methods={"full": {}, "cdpruner": {"clip": "clip"}})


def test_questions_are_cut_into_segments_with_their_own_start_and_end(folder: Path) -> None:
    model = clip.loaded({"clip": "clip"}, torch.device("cpu"))["clip"]
    short, long = segments(model, ["is the circle red", "what colour is the circle and is the other red ?"])
    start, end = len(WORDS) + 1, len(WORDS) + 2
    assert short.tolist() == [[start, *(WORDS.index(word) for word in ("is", "the", "circle", "red")), end]]
    assert long.shape == (2, ROOM) and set(long[:, 0].tolist()) == {start}
    assert long[0, -1] == end and long[1].tolist()[-2:] == [end, end]
    alone = torch.tensor([long[1].tolist()[: long[1].tolist().index(end) + 1]])
    with torch.no_grad():
        padded = model.text_model(long[1:]).pooler_output
        torch.testing.assert_close(padded, model.text_model(alone).pooler_output)


def test_the_grid_runs_with_a_clip_model_by_name(folder: Path) -> None:
    parameters = load_parameters()
    evaluate.evaluate(["cdpruner"], parameters.model, parameters.evaluate)
    with_clip = pq.read_table("results/predictions/cdpruner.parquet").to_pandas()
    settings = json.loads(with_clip["parameters"][0])
    assert settings == {"keep": 18, "clip": "clip"}
    assert pruning.make("cdpruner", **settings).clip == "clip", "what is written makes the method again"

    parameters.evaluate.methods["cdpruner"].clear()
    evaluate.evaluate(["cdpruner"], parameters.model, parameters.evaluate)
    fallback = pq.read_table("results/predictions/cdpruner.parquet").to_pandas()
    chosen = [[row[0]["indices"].tolist() for row in table["kept"]] for table in (with_clip, fallback)]
    assert chosen[0] != chosen[1]
    assert len(list(Path("results/parts/cdpruner").iterdir())) == 2


def test_a_clip_model_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"clip: nowhere/clip could not be loaded.*leave clip out"):
        clip.loaded({"clip": "nowhere/clip"}, torch.device("cpu"))


def test_a_clip_model_of_another_width_is_refused(folder: Path) -> None:
    from tests.tiny_models import tiny_llava

    other = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    model, inputs = tiny_llava((1,))
    questions = [torch.tensor([[0, 1]])]
    with (
        pytest.raises(ValueError, match="pass the CLIP model whose vision tower it has"),
        pruning.make("cdpruner", keep=4, clip=other, questions=questions)(model),
    ):
        model(**inputs)
