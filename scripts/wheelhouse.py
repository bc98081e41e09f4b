"""Fill a folder with all that `make setup` and `make backbones` install, to do so offline.

Usage: `python scripts/wheelhouse.py FOLDER TORCH...`, where TORCH is a requirement, such as
`torch==2.13.0`, and options of pip. `torch.lock` in the folder pins, by sha256, torch and what it
needs beyond the lock. The wheels are for the interpreter and the platform that run this.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = (Path("requirements.lock"), Path("scripts/backbones.lock"))
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", re.MULTILINE)


def main(folder: Path, torch: list[str]) -> None:
    """Download what the locks pin, then torch with what they leave out."""
    folder.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS:
        _download(folder, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", lock)
    pinned = dict(PINNED.findall(LOCKS[0].read_text(encoding="utf-8")))
    with tempfile.TemporaryDirectory() as temporary:
        pins = Path(temporary) / "pins.txt"
        pins.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()))
        _download(Path(temporary), "--only-binary", ":all:", "-c", pins, *torch)
        lines = []
        for wheel in sorted(Path(temporary).glob("*.whl")):
            name, version = wheel.name.split("-")[:2]
            if _normal(name) in map(_normal, pinned):
                continue
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            lines.append(f"{_normal(name)}=={version} --hash=sha256:{digest}\n")
            (folder / wheel.name).write_bytes(wheel.read_bytes())
    (folder / "torch.lock").write_text("".join(lines), encoding="utf-8")
    print(f"{len(list(folder.glob('*.whl')))} wheels in {folder}; make setup WHEELS={folder}")


def _download(folder: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, *arguments]
    subprocess.run(command, check=True)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
