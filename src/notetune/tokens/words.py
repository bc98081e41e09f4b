"""Tokens word by word: notes repeat their words, so most of them are looked up, not encoded."""

import bisect
import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

# Stand-ins within a word for a space after the first, a line break, and the beginning of the text.
_MORE, _LINE, _FIRST = "\x00", "\x01", "\x02"
_META: Final = "▁"
_OTHER_SPACES: Final = [c for c in map(chr, range(0x3001)) if c.isspace() and c not in " \n"]

# How known byte-level tokenizers first cut a text. In each of them, a space after a visible
# character begins a new piece; the value is whether every line break is a piece of its own.
_CUTS_LINES: Final = {
    # The shipped backbone.
    r"\n|\d| ?[^\s\d\p{P}\p{S}]+| ?[\p{P}\p{S}]+|[^\S\n]+": True,
    # LLaMA 3: line breaks join the punctuation before them.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": False,
}
_MAX_WORDS: Final = 1 << 18
_MAX_WORD_CHARS: Final = 80
_PROBE: Final = "Seen by  Dr. O'Neil,\n 10/23;\n\n  5 mg\té—☃ </s> <s>x \t y \xa0 z?!\n\n\n (q.d.) "


class WordCache(dict[str, bytes]):
    """Ids, packed into bytes, of the words met so far; a word not met before is encoded.

    It starts anew when it is full, so that it stays small on text of any length.
    """

    def __init__(
        self, whole: Tokenizer, inner: Tokenizer, dtype: npt.DTypeLike, *, cuts_lines: bool
    ) -> None:
        """Use `word_cache`, which knows for which tokenizers this is exact.

        They encode whole texts and text from the middle of a text. `cuts_lines` says that every
        line break is cut off from what is before it.
        """
        super().__init__()
        self._whole, self._inner, self._dtype = whole, inner, dtype
        self._cuts_lines = cuts_lines
        self._reserved = (_MORE, _LINE, _FIRST, *((_META,) if inner is not whole else ()))
        self._spaces = _OTHER_SPACES if cuts_lines else ["\n", *_OTHER_SPACES]
        self._ascii_spaces = [space for space in self._spaces if space.isascii()]

    def split(self, text: str) -> list[str] | None:
        """The words of a text, each with the white space before it; None if it cannot be cut.

        A word begins at a space or line break that follows a visible character. The space is left
        out of the word, and further white space stands in it in a form that `split(" ")` keeps.
        """
        if text[:1] in (" ", "\n") or any(map(text.__contains__, self._reserved)):
            return None
        for space in self._ascii_spaces if text.isascii() else self._spaces:
            if space in text:
                text = text.replace(f"{space} ", f"{space}{_MORE}")
        if self._cuts_lines:
            text = text.replace("\n", f" {_LINE}")
        text = text.replace("  ", f" {_MORE}").replace(f"{_MORE} ", _MORE + _MORE)
        return (_FIRST + text).split(" ")

    def encode(self, word: str) -> Encoding:
        """What the tokenizer makes of one word."""
        is_first = word.startswith(_FIRST)
        text = word[1:] if is_first else f" {word}"
        text = text.replace(_MORE, " ").replace(f" {_LINE}", "\n")
        tokenizer = self._whole if is_first else self._inner
        return tokenizer.encode(text, add_special_tokens=False)

    def starts_of(
        self, words: Sequence[str], packed: Sequence[bytes], tokens: Sequence[int]
    ) -> list[int]:
        """The characters at which some tokens of a text start; after the last, where it ends."""
        width = np.dtype(self._dtype).itemsize
        ends = list(itertools.accumulate(map(len, packed)))
        # Where each word starts, behind a space; a line break is a space and a stand-in.
        lengths = (len(word) + 1 - word.count(_LINE) for word in words)
        begins = [length - 1 - len(_FIRST) for length in itertools.accumulate(lengths, initial=0)]
        starts = []
        for token in tokens:
            number = bisect.bisect_right(ends, token * width)
            start = max(begins[number], 0)
            if number < len(words):
                within = token - (ends[number - 1] // width if number else 0)
                start += self.encode(words[number]).offsets[within][0]
            starts.append(start)
        return starts

    def __missing__(self, word: str) -> bytes:
        if len(self) >= _MAX_WORDS:
            self.clear()
        packed = np.array(self.encode(word).ids, self._dtype).tobytes()
        if len(word) <= _MAX_WORD_CHARS:
            self[word] = packed
        return packed


def word_cache(tokenizer: Tokenizer, dtype: npt.DTypeLike) -> WordCache | None:
    """A cache for a tokenizer whose words can be encoded one by one; None for any other.

    Known are two kinds of byte-pair encoding: byte-level ones that cut the text at one of the
    regular expressions above, and those with `▁` for a space in which no piece goes on beyond the
    beginning of a word. Should a probe differ from the whole text's ids, the answer is None too.
    """
    spec = json.loads(tokenizer.to_str())
    model, tokens = spec["model"], spec["added_tokens"]
    if model["type"] != "BPE" or model["dropout"] or not all(token["special"] for token in tokens):
        return None
    if not tokenizer.encode_special_tokens:
        return None
    inner: Tokenizer | None = tokenizer
    cuts_lines = _cuts_lines(spec)
    if cuts_lines is None:
        inner = _without_first_mark(spec)
        cuts_lines = _line_break_stands_alone(model)
    if inner is None:
        return None
    cache = WordCache(tokenizer, inner, dtype, cuts_lines=cuts_lines)
    expected = np.array(tokenizer.encode(_PROBE, add_special_tokens=False).ids, dtype).tobytes()
    is_exact = b"".join(cache[word] for word in cache.split(_PROBE) or ()) == expected
    cache.clear()
    return cache if is_exact else None


def _cuts_lines(spec: dict[str, Any]) -> bool | None:
    """The value of `_CUTS_LINES`; None if this is not a known byte-level tokenizer."""
    match spec["normalizer"], spec["pre_tokenizer"]:
        case None, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return False  # GPT-2: all line breaks of a run but the last are one piece
        case None, {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"} as split,
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if not split["invert"]:
            return _CUTS_LINES.get(pattern)
        case _:
            return None


def _without_first_mark(spec: dict[str, Any]) -> Tokenizer | None:
    """The tokenizer without the `▁` that it puts before a text; None if words are not exact."""
    model = spec["model"]
    crosses = any(_META in piece.lstrip(_META) for piece in model["vocab"])
    if crosses or model["ignore_merges"] or _META not in model["vocab"]:
        return None
    match spec["normalizer"], spec["pre_tokenizer"]:
        case {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"} as replace,
            ],
        }, None:
            changed = {**spec, "normalizer": replace}
        case None, {"type": "Metaspace", "replacement": "▁"} as metaspace:
            changed = {**spec, "pre_tokenizer": {**metaspace, "prepend_scheme": "never"}}
        case _:
            return None
    inner = Tokenizer.from_str(json.dumps(changed))
    inner.encode_special_tokens = True
    return inner


def _line_break_stands_alone(model: dict[str, Any]) -> bool:
    """Whether a line break is a token of its own everywhere: in no longer piece, never `<unk>`.

    Neighbours that are both unknown become one `<unk>`.
    """
    vocabulary = model["vocab"]
    name = "<0x0A>" if model["byte_fallback"] and "\n" not in vocabulary else "\n"
    return name in vocabulary and not any(name in piece for piece in vocabulary if piece != name)
