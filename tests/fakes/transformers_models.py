"""Small Hugging Face models with random weights. They need the package transformers."""

from pathlib import Path
from typing import Any

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "the", "is", "was")


def save_bert(folder: Path, head: str, **config: Any) -> Path:
    """Saves a BERT with two layers and a vocabulary of a dozen words.

    Args:
        folder: Folder to write.
        head: Class of the model, such as `BertForSequenceClassification`.
        config: Further values of its configuration.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    if "id2label" in config:
        config["label2id"] = {label: index for index, label in config["id2label"].items()}
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    configuration = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0, **sizes, **config
    )
    getattr(transformers, head)(configuration).eval().save_pretrained(folder)
    save_tokenizer(folder, "pad", "unk", "cls", "sep", "mask")
    return folder


def save_gpt(folder: Path) -> Path:
    """Saves a model for generation with two layers, whose tokenizer has no token for padding."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    configuration = transformers.GPT2Config(vocab_size=len(WORDS), bos_token_id=2, eos_token_id=3, **sizes)
    transformers.GPT2LMHeadModel(configuration).eval().save_pretrained(folder)
    save_tokenizer(folder, "unk", "sep", "eos")
    return folder


def save_vit(folder: Path) -> Path:
    """Saves a classifier of images with one layer and three labels. Its pipeline needs the package pillow."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    configuration = transformers.ViTConfig(image_size=16, patch_size=8, num_labels=3, **sizes)
    transformers.ViTForImageClassification(configuration).eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, *special: str) -> None:
    """Saves a tokenizer that splits texts at spaces.

    Args:
        folder: Folder to write.
        special: Names of its special tokens.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if "cls" in special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokens = {f"{name}_token": "[SEP]" if name == "eos" else f"[{name.upper()}]" for name in special}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
