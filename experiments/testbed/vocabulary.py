"""The embedded model's words, tokenizer, chat template and processor."""

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from experiments.testbed.scenes import CANVAS, CHARACTERS, COLOURS, DOT, SHAPES

PATCH = 8  # pixels
GRID = CANVAS // PATCH
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:")
BACKGROUND = "background"
PLURALS = tuple("crosses" if shape == "cross" else f"{shape}s" for shape in SHAPES)
QUESTION_WORDS = (
    "is",
    "there",
    "a",
    "the",
    "what",
    "color",
    "shape",
    "character",
    "size",
    "object",
    "objects",
    "how",
    "many",
    "are",
)
PLACE_WORDS = ("left", "right", "of", "above", "below", "on", "with")
OTHER_WORDS = (
    "describe",
    "image",
    "and",
    "in",
    "or",
    "picture",
    "yes",
    "no",
    "1",
    "2",
    "3",
    "5",
    "large",
    "small",
    "tiny",
)
GRAMMAR = (*QUESTION_WORDS, *PLACE_WORDS, *OTHER_WORDS, "?", ".", ",")
WORDS = (*SPECIAL, *COLOURS, *SHAPES, *PLURALS, DOT, *CHARACTERS, *GRAMMAR, BACKGROUND)
WORD_ID = {word: index for index, word in enumerate(WORDS)}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image> {% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over WORDS: lower-cased, punctuation split off, unknown words become <unk>."""
    core = Tokenizer(models.WordLevel(WORD_ID, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "USER:", "ASSISTANT:"],
        padding_side="left",
        model_max_length=512,
    )


def build_processor() -> LlavaProcessor:
    """Processor whose one <image> becomes GRID x GRID visual tokens."""
    pixels = CLIPImageProcessorPil(
        size={"height": CANVAS, "width": CANVAS},
        do_center_crop=False,
        image_mean=[0.4, 0.4, 0.4],
        image_std=[0.25, 0.25, 0.25],
    )
    return LlavaProcessor(
        image_processor=pixels,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
