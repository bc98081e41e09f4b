"""The byte-pair encoding of a SentencePiece model, from its pieces and their scores."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

_SPACE = "\u2581"
_FIRST_BYTE = "<0x00>"


def to_tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    """The same byte-pair encoding: the best-scored neighbouring pair merges first."""
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                merges.append((-score, ids[left], ids[right], left, right))
    model = models.BPE(
        vocab=ids,
        merges=[(left, right) for *_, left, right in sorted(merges)],
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=_FIRST_BYTE in ids,  # without byte pieces, rare characters are unknown
    )
    tokenizer = Tokenizer(model)
    if any(_SPACE in piece[1:] for piece, _ in pieces):
        steps = [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
        tokenizer.normalizer = normalizers.Sequence(steps)
    else:  # no piece crosses a word, so words can be encoded one by one, which is faster
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer
