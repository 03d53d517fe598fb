"""A worker of the service whose models mark the voxels above zero, in place of networks."""

import json
import sys
from pathlib import Path

import numpy as np

from serve_engine import FakeEngine
from trivox.errors import DataError
from trivox.service.serve.jobs.states import Stage
from trivox.service.serve.work.worker import work
from trivox.volumes.formats import read_volume, write_volume

WORKER = (sys.executable, __file__)


class LabelEngine(FakeEngine):
    def predict(self, order, report):
        report(Stage.COMPUTING)
        source = order.source
        if source.is_dir():
            source = sorted(source.rglob("*.nii*"))[0]
        volume = read_volume(source)
        if volume.array.max() < -1000:
            raise DataError("the scan is damaged; choose another file")
        labels = (volume.array[:1] > 0).astype(np.uint8)
        write_volume(order.out / "case.nii.gz", volume.with_array(labels[0]))
        record = {
            "model": order.model,
            "cases": {"case": {"voxels": int(labels.sum())}},
        }
        (order.out / "predictions.json").write_text(
            json.dumps(record), encoding="utf-8"
        )


if __name__ == "__main__":
    work(Path(sys.argv[1]), LabelEngine)
