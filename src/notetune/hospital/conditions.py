"""All latent conditions of the synthetic hospital."""

from notetune.notes.synthetic.acute_abdominal import ABDOMINAL
from notetune.notes.synthetic.acute_medical import MEDICAL
from notetune.notes.synthetic.acute_surgical import SURGICAL
from notetune.notes.synthetic.acute_vascular import VASCULAR
from notetune.notes.synthetic.chronic import CHRONIC
from notetune.notes.synthetic.condition import Acute, Chronic

ACUTE: dict[str, Acute] = {row.name: row for row in (*MEDICAL, *ABDOMINAL, *VASCULAR, *SURGICAL)}
LASTING: dict[str, Chronic] = {row.name: row for row in CHRONIC}
