import pytest

from notetune.notes.icd import CATEGORY, has_form, icd9_category, icd9_procedure_category


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("00845", "008"),
        ("4019", "401"),
        ("401.9", "401"),
        ("V3000", "V30"),
        ("V45.81", "V45"),
        ("E8497", "E849"),
        ("E849.7", "E849"),
        (" e8497 ", "E849"),
        ("042", "042"),
        ("31.1", "31"),
    ],
)
def test_a_diagnosis_code_rolls_up_to_its_category(code, category):
    assert icd9_category(code) == category


def test_a_procedure_code_keeps_three_digits_and_its_zeros():
    codes = ["0066", "0331", "331", "3605", "66"]
    assert [icd9_procedure_category(code) for code in codes] == ["006", "033", "331", "360", "66"]


def test_each_kind_and_version_of_code_has_its_own_rule():
    assert {key: category("E1234567") for key, category in CATEGORY.items()} == {
        ("diagnoses", "9"): "E123",
        ("procedures", "9"): "E12",
        ("diagnoses", "10"): "E12",
        ("procedures", "10"): "E123",
    }


def test_a_dot_in_a_procedure_code_is_no_digit():
    assert icd9_procedure_category("36.05") == icd9_procedure_category("3605")


@pytest.mark.parametrize(
    ("of", "version", "yes", "no"),
    [
        ("diagnoses", "10", "I10 e11.9 S72.001A M1A0110 E10.30† C7A", "009430Z 0BJ I1 I 250 12345"),
        ("diagnoses", "9", "001 250.00 V30 v3000 E849.7", "I10 25 250000 0BJ V3"),
        ("procedures", "10", "0BJ08ZZ 07TP 009430z", "0BJ 0IJ08ZZ 0BJ08ZZZ I10"),
        ("procedures", "9", "36 36.05 0066", "3 36055 V30"),
    ],
)
def test_a_code_looks_like_one_of_its_kind(of, version, yes, no):
    assert [code for code in yes.split() if not has_form(code, of, version)] == []
    assert [code for code in no.split() if has_form(code, of, version)] == []
