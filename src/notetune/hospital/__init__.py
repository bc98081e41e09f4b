"""A synthetic hospital: MIMIC-shaped tables and notes whose labels depend on the text.

Latent conditions (`condition`, `conditions`) drive the outcomes (`outcome_model`), the codes and
the words (`prose`, `narrative`, `hospital_course`, `layout`, `ward_notes`) of each patient
(`patients`, `stays`, `charts`); `mimic3` and `mimic4` write the tables, `edge_*` the awkward
records, `truth` and `oracle` what is true of them.
"""

from notetune.hospital.hospital import SyntheticConfig, write_hospital
from notetune.hospital.truth import AdmissionTruth, EdgeCase, HospitalTruth, Verdict

__all__ = [
    "AdmissionTruth",
    "EdgeCase",
    "HospitalTruth",
    "SyntheticConfig",
    "Verdict",
    "write_hospital",
]
