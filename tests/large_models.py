"""Tiny random models of transformers' own families, saved as repositories are, for many tests.

Their weights are drawn so that captions differ from picture to picture, have words of several
tokens, and end. They know nothing: tests compare what gazetell makes of them with what
transformers itself gives.
"""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = (
    "a an the on in of is are and to with it no yes red blue green circle square triangle cross "
    "star left right above below two three small big dog cat what which color how many picture "
    "where there one run ##s ##ing ##let ##ish ##er . , ? ! '"
)
TEXTS = (
    "a small red circle is above a big blue square.",
    "two green stars and the yellow triangle below, left of a dog!",
    "Describe this image in one sentence. What colour is it? yes no",
    "User: Assistant: which how many there are three cats in the picture",
)
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}:"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
VISION |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 2}


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS.split()))}
    return BertTokenizer(vocab=vocabulary, bos_token="[CLS]", eos_token="[SEP]")


def _byte_tokenizer(*special: str, **names: str) -> Any:
    """A byte-level BPE as GPT-2 and SmolVLM have, with few merges: words of several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    letters = string.ascii_letters + string.digits + string.punctuation
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(letters) + 60,
        special_tokens=list(special),
        show_progress=False,
    )
    inner.train_from_iterator((*TEXTS, *TEXTS, letters), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def _blip(answers: bool) -> tuple[Any, ...]:
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForQuestionAnswering,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = _bert_tokenizer()
    ends = {"bos_token_id": 2, "eos_token_id": 1, "sep_token_id": 3, "pad_token_id": 0}
    # Of the published models: bos 30522 is [DEC], eos 2 is a filler of generate, sep ends.
    text = TEXT | ends | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    text |= {"encoder_hidden_size": 16, "projection_dim": 16}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16)
    kind = BlipForQuestionAnswering if answers else BlipForConditionalGeneration
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    model = kind(config)
    return model, BlipProcessor(images, tokenizer), model.text_decoder.cls.predictions.bias, 3


def _git() -> tuple[Any, ...]:
    from transformers import CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tokenizer = _bert_tokenizer()
    ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
    config = GitConfig(vision_config=VISION, **text, **ends)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = GitForCausalLM(config)
    return model, GitProcessor(images, tokenizer), model.output.bias, 3


def _vit_gpt2() -> tuple[Any, ...]:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
        ViTImageProcessor,
    )

    end = "<|endoftext|>"
    tokenizer = _byte_tokenizer(end, bos_token=end, eos_token=end, pad_token=end)
    decoder = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=24,  # other than of the encoder, whose states are then projected
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=0,
        add_cross_attention=True,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), decoder)
    config.decoder_start_token_id = config.pad_token_id = config.eos_token_id = 0
    model = VisionEncoderDecoderModel(config=config)
    model.generation_config.num_beams = 2  # as published: beams are the model's own choice
    images = ViTImageProcessor(size={"height": 32, "width": 32})
    return model, (images, tokenizer), None, 0


def _chat() -> tuple[Any, ...]:
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
    )

    names = ["<|pad|>", "<|im_start|>", "<end_of_utterance>", "<image>"]
    names += ["<fake_token_around_image>", "<global-img>"]
    names += [f"<row_{row}_col_{col}>" for row in (1, 2) for col in (1, 2)]
    ends = {"pad_token": names[0], "bos_token": names[1], "eos_token": names[2]}
    tokenizer = _byte_tokenizer(*names, **ends)
    sides = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**sides), tokenizer, image_seq_len=4, chat_template=TEMPLATE
    )
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text = TEXT | ids | {"vocab_size": len(tokenizer), "num_key_value_heads": 2}
    text |= {"model_type": "llama", "max_position_embeddings": 512}
    config = Idefics3Config(
        vision_config=VISION, text_config=text, image_token_id=3, scale_factor=2, pad_token_id=0
    )
    return Idefics3ForConditionalGeneration(config), processor, None, 2


def _blip_2() -> tuple[Any, ...]:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    names = {"pad_token": "<pad>", "bos_token": "</s>", "eos_token": "</s>"}
    tokenizer = _byte_tokenizer("<pad>", "</s>", "<image>", **names)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    shape = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 24}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 128}
    text = OPTConfig(vocab_size=len(tokenizer), **shape, **ids).to_dict()
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=TEXT | {"encoder_hidden_size": 16, "vocab_size": 8},
        text_config=text,
        num_query_tokens=4,
        image_token_index=2,
    )
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    processor = Blip2Processor(images, tokenizer, num_query_tokens=4)
    return Blip2ForConditionalGeneration(config), processor, None, 1


FAMILIES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "blip": lambda: _blip(answers=False),
    "blip-vqa": lambda: _blip(answers=True),
    "git": _git,
    "vit-gpt2": _vit_gpt2,
    "chat": _chat,
    "blip-2": _blip_2,
}


def save_large(folder: Path, family: str, seed: int = 0) -> Path:
    """Save a tiny random model of a family of ``FAMILIES`` as a repository; gives the folder."""
    import torch

    torch.manual_seed(seed)
    model, processor, bias, end = FAMILIES[family]()
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
                if "embed" in name and "patch" in name:
                    parameter *= 2
        if bias is not None:
            bias[end] += 1.0  # captions end
    model.eval().save_pretrained(folder)
    for part in processor if isinstance(processor, tuple) else (processor,):
        part.save_pretrained(folder)
    return folder
