"""All latent conditions of the synthetic hospital."""

from notetune.hospital.acute_abdominal import ABDOMINAL
from notetune.hospital.acute_medical import MEDICAL
from notetune.hospital.acute_surgical import SURGICAL
from notetune.hospital.acute_vascular import VASCULAR
from notetune.hospital.chronic import CHRONIC
from notetune.hospital.condition import Acute, Chronic

ACUTE: dict[str, Acute] = {row.name: row for row in (*MEDICAL, *ABDOMINAL, *VASCULAR, *SURGICAL)}
LASTING: dict[str, Chronic] = {row.name: row for row in CHRONIC}
