"""Questions about images as one left-padded batch of model inputs."""

from collections.abc import Sequence
from typing import Any

from transformers import BatchFeature, ProcessorMixin

from experiments.asking.images import ImageError, ImageSource, load_image


class InputError(ValueError):
    """A question or its images that cannot become model inputs; the message names the sample and what to change."""


def build_inputs(
    processor: ProcessorMixin, images: Sequence[ImageSource | Sequence[ImageSource]], questions: Sequence[str]
) -> BatchFeature:
    """Render each question with the processor's chat template, images first, and tokenize them as one batch.

    Args:
        processor: of the model that gets the inputs; it must have a chat template.
        images: for each sample one image, or a list of none, one or several; see `load_image`.
        questions: one for each sample, B of them.

    Returns:
        What the model takes: `input_ids` and `attention_mask`, int64 [B, length], padded on the left; `pixel_values`
        and what else the family needs, unless no sample has an image. On the CPU.

    Raises:
        InputError: empty batch or question, as many images as questions not given, a question that contains the
            image placeholder itself, a processor without chat template or, for a batch, without padding token.
        ImageError: an image that cannot be read; the message starts with the sample's number.
    """
    if len(images) != len(questions) or not questions or isinstance(questions, str):
        raise InputError(
            f"{len(images)} entries of images for {'one string' if isinstance(questions, str) else len(questions)} "
            "as questions: give two lists of the same length, at least one sample; [] for a sample without an image."
        )
    tokenizer = processor.tokenizer
    if getattr(processor, "chat_template", None) is None:
        raise InputError(
            "The processor has no chat template. Save one with it, as chat_template.jinja beside its files."
        )
    if len(questions) > 1 and tokenizer.pad_token is None:
        raise InputError("The tokenizer has no padding token, which a batch needs. Set processor.tokenizer.pad_token.")
    conversations = [_conversation(n, *sample) for n, sample in enumerate(zip(images, questions, strict=True))]
    _check_placeholders(processor, conversations)
    return processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": len(questions) > 1, "padding_side": "left"},
    )


def _conversation(number: int, images: ImageSource | Sequence[ImageSource], question: str) -> list[dict[str, Any]]:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"sample {number}: the question is empty or no text ({question!r}); give it some words.")
    sources = images if isinstance(images, list | tuple) else [images]
    try:
        content: list[dict[str, Any]] = [{"type": "image", "image": load_image(source)} for source in sources]
    except ImageError as error:
        raise ImageError(f"sample {number}: {error}") from error
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def _check_placeholders(processor: ProcessorMixin, conversations: list[list[dict[str, Any]]]) -> None:
    """transformers compares the totals of a batch only: two wrong samples could trade their images unnoticed."""
    prompts = processor.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
    for number, (prompt, conversation) in enumerate(zip(prompts, conversations, strict=True)):
        *images, question = conversation[0]["content"]
        found = prompt.count(processor.image_token)
        if found != len(images):
            cause = (
                "the question itself contains it: take it out, the chat template puts one in for each image"
                if processor.image_token in question["text"]
                else "the processor's chat template does not put one in for each image: check the template"
            )
            raise InputError(
                f"sample {number}: {found} image placeholders {processor.image_token!r} for {len(images)} images; "
                f"{cause}."
            )
