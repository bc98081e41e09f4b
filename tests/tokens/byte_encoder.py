"""An encoder whose tokens are bytes, and texts for it."""

from builders import byte_tokenizer

from notetune.tokens.edges import Edges
from notetune.tokens.encode import Encoder

_TOKENIZER = byte_tokenizer()
_TOKENIZER.encode_special_tokens = True  # as `read_declared` sets it: "<s>" in a note is text
ENCODER = Encoder(_TOKENIZER, Edges(0, 1), vocabulary_size=260)
TEXTS = ["short", "a much longer note that needs several pieces " * 4, "é—ü " * 9, "x"]
