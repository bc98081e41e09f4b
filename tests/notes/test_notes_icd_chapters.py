import pytest

from notetune.notes.icd_chapters import CHAPTERS, icd_chapter


@pytest.mark.parametrize(
    ("code", "version", "chapter"),
    [
        ("00845", "9", "001-139"),
        ("139.8", "9", "001-139"),
        ("140", "9", "140-239"),
        ("25000", "9", "240-279"),
        ("401.9", "9", "390-459"),
        ("9999", "9", "800-999"),
        (" v30.00 ", "9", "V01-V91"),
        ("V4581", "9", "V01-V91"),
        ("E849.7", "9", "E000-E999"),
        ("e8497", "9", "E000-E999"),
        ("b99.9", "10", "A00-B99"),
        ("C4A.9", "10", "C00-D49"),
        ("D49", "10", "C00-D49"),
        ("D500", "10", "D50-D89"),
        ("E11.9", "10", "E00-E89"),
        ("H5989", "10", "H00-H59"),
        ("H60", "10", "H60-H95"),
        ("O9A.2", "10", "O00-O9A"),
        ("T88.9XXA", "10", "S00-T88"),
        ("U071", "10", "U00-U85"),
        ("V30.0", "10", "V00-Y99"),
        ("Z3A", "10", "Z00-Z99"),
        ("D90", "10", "D50-D89"),
        ("E90*", "10", "E00-E89"),
        ("F00.1*", "10", "F01-F99"),
        ("T89.0", "10", "S00-T88"),
        ("T98.3", "10", "S00-T88"),
        ("U99.0!", "10", "U00-U85"),
    ],
)
def test_a_code_is_in_the_chapter_of_its_category(code, version, chapter):
    assert icd_chapter(code, version) == chapter


@pytest.mark.parametrize(
    ("code", "version"),
    [
        ("000", "9"),
        ("31.1", "9"),
        ("V99", "9"),
        ("E84", "9"),
        ("E11", "9"),
        ("401.9 hypertension", "9"),
        ("401", "10"),
        ("E8", "10"),
        ("T99", "10"),
        ("heart", "10"),
        ("", "10"),
    ],
)
def test_what_is_no_code_of_the_version_is_in_no_chapter(code, version):
    assert icd_chapter(code, version) is None


@pytest.mark.parametrize(("version", "count"), [("9", 19), ("10", 22)])
def test_both_ends_of_a_chapter_are_in_it_and_in_no_other(version, count):
    names = list(CHAPTERS[version])
    ends = [(name, end) for name in names for end in name.split("-")]
    assert [icd_chapter(end, version) for _, end in ends] == [name for name, _ in ends]
    assert len(names) == count
    of_digits = [end for _, end in ends if end[0].isdigit() or version == "10"]
    assert of_digits == sorted(set(of_digits))
