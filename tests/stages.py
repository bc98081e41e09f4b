"""A small finished folder, and what is in a folder."""

from notetune import runs

INPUTS = {"notes": "abc", "seed": 3}


def build(folder, content="one", inputs=INPUTS):
    with runs.new_folder(folder, inputs) as part:
        (part / "weights.bin").write_bytes(content.encode() * 100)
        (part / "sub").mkdir()
        (part / "sub" / "notes.txt").write_text(content)


def everything_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
