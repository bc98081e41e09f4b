"""The folder of wheels that a machine without a network installs from."""

import hashlib

import pytest
import wheelhouse


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """What pip would download: torch, with what it needs, of which the lock pins one."""
    asked = []

    def download(folder, *arguments):
        asked.append([str(argument) for argument in arguments])
        if "torch==9.9" in arguments:
            for name in ("torch-9.9+cu1-cp311", "nvidia_Cublas.cu12-1.2-py3", "numpy-9.0-cp311"):
                (folder / f"{name}-none.whl").write_text(name)

    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==9.0 \\\n    --hash=sha256:aa\n")
    monkeypatch.setattr(wheelhouse, "LOCKS", (lock,))
    monkeypatch.setattr(wheelhouse, "_download", download)
    return asked


def test_torch_and_what_the_lock_leaves_out_are_pinned_by_their_bytes(tmp_path, downloads):
    wheelhouse.main(tmp_path / "wheels", ["torch==9.9", "--index-url", "somewhere"])
    names = {path.name for path in (tmp_path / "wheels").iterdir()}
    assert names == {
        "torch-9.9+cu1-cp311-none.whl",
        "nvidia_Cublas.cu12-1.2-py3-none.whl",
        "torch.lock",
    }
    digest = hashlib.sha256(b"torch-9.9+cu1-cp311").hexdigest()
    lines = (tmp_path / "wheels" / "torch.lock").read_text().splitlines()
    assert f"torch==9.9+cu1 --hash=sha256:{digest}" in lines
    assert [line.split("==")[0] for line in lines] == ["nvidia-cublas-cu12", "torch"]


def test_what_the_lock_pins_must_have_its_hash(tmp_path, downloads):
    wheelhouse.main(tmp_path / "wheels", ["torch==9.9"])
    of_lock, of_torch = downloads
    assert {"--require-hashes", "--no-deps"} <= set(of_lock)
    assert of_torch[-1] == "torch==9.9"
    assert "-c" in of_torch  # so that torch takes what the lock has
