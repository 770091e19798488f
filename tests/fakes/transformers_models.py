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
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    configuration = transformers.BertConfig(
        vocab_size=len(WORDS), max_position_embeddings=64, pad_token_id=0, **sizes, **config
    )
    getattr(transformers, head)(configuration).eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Saves a tokenizer that splits texts at spaces."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
