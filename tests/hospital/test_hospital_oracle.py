"""The oracle knows nothing where there is nothing to know."""

from notetune.hospital.hospital import SyntheticConfig, write_hospital


def test_without_signal_the_oracle_is_blind(tmp_path):
    config = SyntheticConfig(patients=150, mimic4_patients=0, signal=0.0)
    truth = write_hospital(tmp_path / "h", config)
    assert set(truth.oracle["mimic3"]) == {"MOR", "LOS", "PMV", "DIAG", "PROC"}
    assert all(value == 0.5 for value in truth.oracle["mimic3"].values())
    assert set(truth.oracle["mimic4"].values()) == {None}
