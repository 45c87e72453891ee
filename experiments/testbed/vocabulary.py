"""The embedded models' words, tokenizers, chat templates and processors."""

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

from experiments.asking.processors import QwenImageProcessor
from experiments.testbed.scenes import CANVAS, CHARACTERS, COLOURS, DOT, PLURALS, SHAPES

IMAGE_MEAN = [0.4, 0.4, 0.4]
IMAGE_STD = [0.25, 0.25, 0.25]
PATCH = 8  # pixels
GRID = CANVAS // PATCH
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER:", "ASSISTANT:")
BACKGROUND = "background"
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
    "where",
    "top",
    "middle",
    "bottom",
    "center",
)
GRAMMAR = (*QUESTION_WORDS, *PLACE_WORDS, *OTHER_WORDS, "?", ".", ",")
WORDS = (*SPECIAL, *COLOURS, *SHAPES, *PLURALS.values(), DOT, *CHARACTERS, *GRAMMAR, BACKGROUND)
WORD_ID = {word: index for index, word in enumerate(WORDS)}
# The second model knows the first one's words by the same numbers, and a few more.
QWEN_PATCH = 4  # pixels; 2 x 2 patches are merged to one visual token
QWEN_MERGE = 2
QWEN_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_WORDS = (*WORDS, *QWEN_SPECIAL)
QWEN_WORD_ID = {word: index for index, word in enumerate(QWEN_WORDS)}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'].upper() }}: "
    "{% if message['content'] is string %}{{ message['content'] }} {% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image> {% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


QWEN_CHAT_TEMPLATE = CHAT_TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")


def build_tokenizer(words: Sequence[str] = WORDS, special: Sequence[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `words`: lower-cased, punctuation split off, unknown words become <unk>."""
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[word for word in special if word not in ("<pad>", "<s>", "</s>", "<unk>")],
        padding_side="left",
        model_max_length=512,
    )


def build_processor() -> LlavaProcessor:
    """Processor whose one <image> becomes GRID x GRID visual tokens."""
    pixels = CLIPImageProcessorPil(
        size={"height": CANVAS, "width": CANVAS},
        do_center_crop=False,
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
    return LlavaProcessor(
        image_processor=pixels,
        tokenizer=build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_qwen_processor() -> QwenImageProcessor:
    """Processor of the second model: an image becomes one visual token for every 8 x 8 of its pixels.

    Images of 32 to 256 pixels a side are taken as they are (sides rounded to multiples of 8), others resized to that.
    """
    pixels = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 32**2, "longest_edge": 256**2},
        patch_size=QWEN_PATCH,
        merge_size=QWEN_MERGE,
        temporal_patch_size=2,
        image_mean=IMAGE_MEAN,
        image_std=IMAGE_STD,
    )
    tokenizer = build_tokenizer(QWEN_WORDS, (*SPECIAL, *QWEN_SPECIAL))
    return QwenImageProcessor(pixels, tokenizer, chat_template=QWEN_CHAT_TEMPLATE)
