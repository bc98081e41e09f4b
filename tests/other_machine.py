"""What another machine leaves in a run folder."""

import json
import os
import time

from notetune import lease, ownership


def leased_by_another(folder, seconds_ago, **changes):
    """A lease that another machine touched last so long ago."""
    values = vars(lease.this_process()) | {"host": "node7", "token": "of node7"} | changes
    path = ownership.lease_of(folder)
    path.write_text(json.dumps(values))
    then = time.time() - seconds_ago
    os.utime(path, (then, then))
