"""Edge cases of the MIMIC-III tables: newborns, lengths of stay, codes and splits."""

from edge_cases.cases import Edge, EdgeCase, Fate, Verdict
from notetune.hospital.charts import Chart

_NEWBORN_DIAGNOSES = ("V3000", "V290", "76518", "7742", "V053")
_NEWBORN_PROCEDURES = ("640", "9955")
_ABRASION, _CELLULITIS = "9110", "5283"  # codes that no other admission has

_STAYS = ((3.0, 0), (3.04, 0), (3.06, 1), (7.0, 1), (14.0, 2), (14.1, 3))
"""Days and the class that they fall into once rounded to 0.1 days."""


def _newborn(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.admission_type = "NEWBORN"
    visit.diagnoses, visit.procedures = list(_NEWBORN_DIAGNOSES), list(_NEWBORN_PROCEDURES)
    summary = visit.notes[0]
    summary.text = (
        "Admission Date:  [**2143-2-3**]     Discharge Date:  [**2143-2-6**]\n\n"
        "Service: NEONATOLOGY\n\nHISTORY OF PRESENT ILLNESS:  Baby [**Known lastname 4471**] was\n"
        "born at 35 weeks to a 29-year-old mother and observed for sepsis.\n\n"
        "PHYSICAL EXAM:  Active infant, lungs clear, abdomen soft.\n\n"
        "HOSPITAL COURSE:  Cultures were without growth; room air since birth.\n\n"
        "DISCHARGE DISPOSITION:  Home\n\n"
    )
    visit.notes = [summary]
    reason = "ADMISSION_TYPE is NEWBORN"
    only = "Codes that no other admission has: labels without a positive in the cohort."
    labels = (("DIAG", "V30"), ("DIAG", "V29"), ("DIAG", "765"), ("PROC", "640"))
    core = (("DIAG", "V300"), ("DIAG", "V290"), ("DIAG", "765"), ("PROC", "640"))
    return [
        EdgeCase(chart, "newborn", "A newborn.", [visit], [summary], Verdict(False, reason)),
        EdgeCase(
            chart,
            "newborn_only_labels",
            only,
            [visit],
            [],
            Verdict(False, reason, labels=labels),
            Verdict(False, reason, labels=core),
            tasks=("DIAG", "PROC"),
        ),
    ]


def _stay_limits(chart: Chart) -> list[EdgeCase]:
    cases = []
    for visit, (days, label) in zip(chart.visits, _STAYS, strict=True):
        what = f"A stay of {days} days, which is class {label}."
        verdict = Verdict(True, "rounded to 0.1 days first", labels=(("LOS", str(label)),))
        cases.append(
            EdgeCase(chart, f"los_{days}_days", what, [visit], [], verdict, tasks=("LOS",))
        )
    return cases


def _several_admissions(chart: Chart) -> list[EdgeCase]:
    visits = list(chart.visits)
    verdict = Verdict(True, "all of them go to one split")
    what = f"A patient with {len(visits)} admissions."
    return [
        EdgeCase(
            chart, "several_admissions", what, visits, [visit.notes[0] for visit in visits], verdict
        )
    ]


def _in_no_split(chart: Chart) -> list[EdgeCase]:
    chart.split = ""
    verdict = Verdict(True, "kept in the cohort, dropped where the split files decide")
    what = "A patient whose SUBJECT_ID is in no split file."
    return [EdgeCase(chart, "patient_in_no_split", what, list(chart.visits), [], verdict)]


def _diagnosis(name: str, what: str, code: str, label: str, label_2021: str) -> Edge:
    def edit(chart: Chart) -> list[EdgeCase]:
        visit = chart.visits[0]
        visit.diagnoses = [code, *(found for found in visit.diagnoses if found != code)]
        verdict = Verdict(True, "kept as text", labels=(("DIAG", label),))
        core = Verdict(True, "four characters of V and E codes", labels=(("DIAG", label_2021),))
        return [EdgeCase(chart, name, what, [visit], [], verdict, core, tasks=("DIAG",))]

    return Fate(), edit


def _procedure(name: str, what: str, code: str, label: str, label_2021: str) -> Edge:
    def edit(chart: Chart) -> list[EdgeCase]:
        visit = chart.visits[0]
        visit.procedures = [code, *(found for found in visit.procedures if found != code)]
        core = Verdict(True, "read as a number", labels=(("PROC", label_2021),))
        verdict = Verdict(True, "kept as text", labels=(("PROC", label),))
        return [EdgeCase(chart, name, what, [visit], [], verdict, core, tasks=("PROC",))]

    return Fate(), edit


def _null_code(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.diagnoses = ["4019", *(code for code in visit.diagnoses if code != "4019"), None]
    verdict = Verdict(True, "the row without a code is ignored", labels=(("DIAG", "401"),))
    what = "A diagnosis row with neither SEQ_NUM nor ICD9_CODE."
    return [EdgeCase(chart, "null_icd9_code", what, [visit], [], verdict, tasks=("DIAG",))]


def _no_procedures(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.procedures = []
    verdict = Verdict(False, "no procedure code")
    what = "An admission without a procedure."
    return [EdgeCase(chart, "no_procedures", what, [visit], [], verdict, tasks=("PROC",))]


def _no_codes(chart: Chart) -> list[EdgeCase]:
    visit = chart.visits[0]
    visit.diagnoses, visit.procedures = [], []
    verdict = Verdict(False, "no diagnosis code and no procedure code")
    what = "An admission without any code."
    return [EdgeCase(chart, "no_codes", what, [visit], [], verdict, tasks=("DIAG", "PROC"))]


def _rare(name: str, split: str, code: str, absent: str) -> Edge:
    def edit(chart: Chart) -> list[EdgeCase]:
        chart.split = split
        visit = chart.visits[0]
        visit.diagnoses.append(code)
        verdict = Verdict(
            True, f"label without a positive in {absent}", labels=(("DIAG", code[:3]),)
        )
        what = f"A label that one admission of the {split} split has and no other."
        return [EdgeCase(chart, name, what, [visit], [], verdict, tasks=("DIAG",))]

    return Fate(), edit


ROW_EDGES: tuple[Edge, ...] = (
    (Fate(days=(2.6,)), _newborn),
    (Fate(admissions=len(_STAYS), days=tuple(days for days, _ in _STAYS)), _stay_limits),
    (Fate(admissions=3), _several_admissions),
    (Fate(), _in_no_split),
    _diagnosis("v_code", "A V code, whose category has three characters.", "V4581", "V45", "V458"),
    _diagnosis("e_code", "An E code, whose category has four.", "E8859", "E885", "E885"),
    _diagnosis("leading_zero_diagnosis", "A diagnosis with a leading zero.", "0389", "038", "038"),
    _procedure("two_leading_zeros", "A procedure with two leading zeros.", "0066", "006", "66"),
    _procedure("leading_zero", "A procedure with a leading zero.", "0331", "033", "331"),
    _procedure("two_digit_procedure", "A procedure cut to two digits.", "66", "66", "66"),
    _procedure("three_digit_procedure", "A procedure of three digits.", "387", "387", "387"),
    _procedure("four_digit_procedure", "A procedure of four digits.", "3893", "389", "389"),
    (Fate(), _null_code),
    (Fate(), _no_procedures),
    (Fate(), _no_codes),
    _rare("rare_label", "train", _ABRASION, "val and test"),
    _rare("all_zero_test_column", "val", _CELLULITIS, "train and test"),
)
