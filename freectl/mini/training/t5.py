"""A tiny T5 encoder over the words of the domain, in the classes that pipelines of the SD 3 and the IF kind load."""

from transformers import T5Config, T5EncoderModel, T5TokenizerFast

from freectl.mini.domain import vocabulary


def make_t5_tokenizer() -> T5TokenizerFast:
    """A unigram tokenizer: each word of the domain is one token."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -1.0) for word in vocabulary())]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def make_t5_encoder(tokenizer: T5TokenizerFast, width: int, layers: int) -> T5EncoderModel:
    """An encoder of heads of 32 channels, with gated feed-forward layers (T5 v1.1)."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=32,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=width // 32,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config)
