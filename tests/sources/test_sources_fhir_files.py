"""The bytes of attachments: in local Binaries, and in files beside the export."""

import gzip
import json

import pytest
from fhir_documents import CANARY, attachment, cohort_of, document, packed, source_of, text_of

from notetune.errors import DataError
from notetune.sources.paths import files_of


def write_binaries(folder, how):
    resources = [
        {"resourceType": "Binary", "id": f"b{i}", "data": packed(f"{CANARY} binary {i}")}
        for i in range(3)
    ]
    if how == "file":
        path = folder / "Binary.ndjson"
        path.write_text("\n".join(map(json.dumps, resources)))
        return path
    path = folder / "binaries"
    path.mkdir()
    for resource in resources:
        name = f"{resource['id']}.{'json' if how == 'one file each' else 'ndjson'}"
        (path / name).write_text(json.dumps(resource))
    return path


@pytest.mark.parametrize("how", ["file", "folder of files", "one file each"])
@pytest.mark.parametrize(
    "url", ["Binary/b1", "https://hospital.example/fhir/Binary/b1", "Binary/b1/_history/2"]
)
def test_a_url_leads_to_a_local_binary(tmp_path, how, url):
    binaries = write_binaries(tmp_path, how)
    text = text_of(tmp_path, attachment("text/plain", url=url), binaries=binaries)
    assert text == f"{CANARY} binary 1"


OUTSIDE = {
    "../../secret.json": "leads to no file in attachments/",
    "../secret.json": "leads to no file in attachments/",
    "attachments/../../secret.json": "leads to no file in attachments/",
    "attachments/%2e%2e/secret.json": "leads to no file in attachments/",
    "attachments/a%5c..%5csecret.json": "leads to no file in attachments/",
    "attachments/": "leads to no file in attachments/",
    "attachments/a%00": "leads to no file in attachments/",
    "/etc/hostname": "leads to no file in attachments/",
    "Binary/../secret": "leads to no file in attachments/",
    "Binary/": "leads to no file in attachments/",
    "Binary/secret": "no such Binary",
    "file:///etc/hostname": "without data or url to a Binary or file",
    "//host/secret.json": "without data or url to a Binary or file",
    "https://hospital.example/zygomorphic": "without data or url to a Binary or file",
    "attachments/zygomorphic.txt": "no such attachment file",
    "attachments/folder": "no such attachment file",
    f"attachments/{'a' * 5000}": "no such attachment file",
    "attachments/linked.txt": "attachment behind a link",
    "attachments/linked/secret.txt": "attachment behind a link",
}


@pytest.mark.parametrize("url", OUTSIDE)
def test_a_url_never_leads_out_of_the_local_folders(tmp_path, url):
    export, elsewhere = tmp_path / "export", tmp_path / "elsewhere"
    for folder in (elsewhere, export / "binaries", export / "attachments" / "folder"):
        folder.mkdir(parents=True)
    secret = json.dumps({"resourceType": "Binary", "id": "secret", "data": packed(CANARY)})
    for file in (export / "secret.json", tmp_path / "secret.json", elsewhere / "secret.txt"):
        file.write_text(secret)
    (export / "attachments" / "linked.txt").symlink_to(elsewhere / "secret.txt")
    (export / "attachments" / "linked").symlink_to(elsewhere)
    with pytest.raises(DataError, match=OUTSIDE[url]) as caught:
        text_of(export, attachment("text/plain", url=url), binaries=export / "binaries")
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_urls_that_lead_out_are_all_there():
    assert len(OUTSIDE) == 19


@pytest.mark.parametrize(
    "url", ["attachments/d 1.txt", "attachments/d%201.txt", "d%201.txt", "./attachments/d%201.txt"]
)
def test_a_url_leads_to_a_file_beside_the_export(tmp_path, url):
    (tmp_path / "attachments").mkdir()
    (tmp_path / "attachments" / "d 1.txt").write_bytes(f"{CANARY} caf\xe9".encode())
    assert text_of(tmp_path, attachment("text/plain", url=url)) == f"{CANARY} caf\xe9"


def test_the_folder_of_attachments_is_no_link_and_its_files_are_not_too_long(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "d1.txt").write_text("a" * 5000)
    (tmp_path / "attachments").symlink_to(tmp_path / "real")
    url = attachment("text/plain", url="attachments/d1.txt")
    with pytest.raises(DataError, match="attachment behind a link"):
        text_of(tmp_path, url)
    (tmp_path / "attachments").unlink()
    (tmp_path / "real").rename(tmp_path / "attachments")
    with pytest.raises(DataError, match="attachment over 4,136 bytes"):
        text_of(tmp_path, url, max_note_chars=10)


def test_what_is_prepared_depends_on_the_attachments(tmp_path):
    cohort_of(tmp_path, document())
    (tmp_path / "attachments").mkdir()
    (tmp_path / "attachments" / "d1.txt").touch()
    found = files_of(source_of(tmp_path / "DocumentReference.ndjson"))
    assert [file.name for file in found] == ["DocumentReference.ndjson", "d1.txt"]


@pytest.mark.parametrize(
    ("cut", "size", "problem"),
    [(5, None, "is not base64"), (4, 10, "is shorter than its size")],
)
def test_a_truncated_attachment_is_a_fault(tmp_path, cut, size, problem):
    data = packed("one two 10")
    fields = {"data": data[:-cut]} | ({} if size is None else {"size": size})
    with pytest.raises(DataError, match=f"attachment {problem}"):
        text_of(tmp_path, attachment("text/plain", **fields))


@pytest.mark.parametrize("size", [10, 16])
def test_a_size_may_count_the_bytes_or_their_base64(tmp_path, size):
    assert text_of(tmp_path, attachment("text/plain", data=packed("one two 10"), size=size)) == (
        "one two 10"
    )


def test_packed_or_damaged_binaries_are_refused(tmp_path):
    path = tmp_path / "Binary.ndjson.gz"
    path.write_bytes(gzip.compress(b"{}"))
    with pytest.raises(DataError, match="is packed, so that no Binary in it can be found"):
        cohort_of(tmp_path, document(), binaries=path)
    (tmp_path / "Binary.ndjson").write_text(f'{{"a": "{CANARY}\n')
    with pytest.raises(DataError, match=r"Binary\.ndjson, line 1: not a JSON object") as caught:
        cohort_of(tmp_path, document(), binaries=tmp_path / "Binary.ndjson")
    assert CANARY not in str(caught.value)
