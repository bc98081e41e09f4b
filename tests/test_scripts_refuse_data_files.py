"""The commit hook that keeps data out of the repository."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HOOK = REPOSITORY / "scripts" / "refuse_data_files.py"

MIMIC_3 = '"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CATEGORY","TEXT"\n1,2,3,x,y,Quillfeather\n'
MIMIC_4 = "note_id,subject_id,hadm_id,note_type,note_seq,charttime,storetime,text\n"
EICU = "patientunitstayid,patienthealthsystemstayid,gender\n"


def run_hook(folder, names):
    """The exit code and the printed lines of the hook, run in `folder` on these files."""
    done = subprocess.run(
        [sys.executable, HOOK, *names], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(files)


REFUSED = {
    "table.csv": "a,b\n1,2\n",
    "deep/TABLE.CSV": "",
    "table.csv.gz": b"",
    "table.csv.bak": "",
    "notes.parquet": b"PAR1",
    "array.npy": b"",
    "tests/array.npy": b"",
    "tests/examples.csv": "",
    "bench/results.csv": "",
    "bench/results/leak.csv": MIMIC_3,
    "notes.txt": MIMIC_3,
    "docs/notes.md": MIMIC_4,
    "bom.txt": b"\xef\xbb\xbf" + MIMIC_4.encode(),
    "tabs.dat": MIMIC_4.replace(",", "\t"),
    "notes.jsonl": '{"subject_id": 1, "hadm_id": 2, "text": "Quillfeather"}\n',
    "icu.txt": EICU,
    "packed.gz": gzip.compress(MIMIC_3.encode()),
}


def test_each_data_file_is_refused_by_name_and_not_by_content(tmp_path):
    code, lines = run_hook(tmp_path, write(tmp_path, REFUSED))
    assert code == 1
    assert [line.split(":")[0] for line in lines] == list(REFUSED)
    assert len(lines) == 17
    assert "Quillfeather" not in "".join(lines)


ACCEPTED = {
    "README.md": "# notetune\n",
    "code.py": "subject_id, hadm_id = 1, 2\n",
    "names.py": "subject_id\n",
    "text.md": "The columns subject_id, hadm_id and note_id name a patient, a stay and a note.\n",
    "list.md": "subject_id, hadm_id, note_id: the identifiers of MIMIC\n",
    "config.json": '{"hidden_size": 4}\n',
    "src/weights.safetensors": b"\x00\xff\x00",
    "damaged.gz": b"not gzip",
    "empty": b"",
    "tests/examples/mimic3/NOTEEVENTS.csv": MIMIC_3,
    "tests/examples/array.npy": b"",
    "bench/results/packing.csv": "question,variant,p50\n",
}


def test_code_text_examples_and_results_are_accepted(tmp_path):
    assert run_hook(tmp_path, write(tmp_path, ACCEPTED)) == (0, [])


def test_a_refused_file_among_accepted_ones_is_found(tmp_path):
    code, lines = run_hook(tmp_path, write(tmp_path, ACCEPTED | {"last.csv": ""}))
    assert code == 1
    assert len(lines) == 1


def test_the_repository_itself_is_clean():
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.split("\0") if (REPOSITORY / name).is_file()]
    assert len(names) >= 10
    assert run_hook(REPOSITORY, names) == (0, [])
