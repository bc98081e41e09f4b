"""What the hospital is made of, as files of text."""
