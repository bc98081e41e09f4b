"""A synthetic hospital: MIMIC-shaped tables and notes whose labels depend on the text.

Latent conditions (`conditions`) drive the outcomes (`outcome_model`), the codes and the words
(`prose`, `narrative`, `hospital_course`, `layout`, `ward_notes`) of each patient (`patients`,
`stays`, `charts`); `mimic3` and `mimic4` write the tables, `truth` and `oracle` say what is true.
"""
