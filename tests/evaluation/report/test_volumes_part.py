import re

import pytest

from trivox.evaluation.folders.volume_summary import (
    NETWORK,
    Rungs,
    collect_volumes,
)
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.parts.volumes import volume_part


def scores(level, cases):
    """PSNR of each case, in dB."""
    return {f"c{i}": {"psnr_db": level + 0.01 * i} for i in range(cases)}


@pytest.mark.parametrize(
    ("cases", "shown"), [(40, "&lt; 0.0001"), (6, "0.0312"), (3, None)]
)
def test_a_p_value_is_never_shown_as_zero(tmp_path, cases, shown):
    rows = {NETWORK: scores(28.0, cases), "SIRT": scores(22.0, cases)}
    metrics = collect_volumes(
        rows[NETWORK],
        task="reconstruction",
        window=(-1024, 1476),
        ladder=Rungs(2, rows),
    )
    write_report(
        tmp_path / "report.html", title="volumes", parts=[volume_part(metrics)]
    )
    page = (tmp_path / "report.html").read_text()
    assert "0.0000" not in page
    last = re.findall(r"<td>([^<]*)</td></tr>", page)
    assert (shown in last) == (shown is not None)
    assert shown is None or f"<td>{shown}</td>" in page
