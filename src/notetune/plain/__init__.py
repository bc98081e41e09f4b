"""Models without a language model: words, columns, and a stack of scores. Nothing needs torch."""
