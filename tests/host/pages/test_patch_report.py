"""The report of Apply says how large the change is, and whether that is usual."""

import pytest


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0.0, "no weight is changed yet"),
        (0.02, "by 2 % on average, usual 5 to 20 %; little"),
        (0.0936, "by 9.36 % on average, usual 5 to 20 %"),
        (1.06, "by 106 % on average, usual 5 to 20 %; more strength brings noise"),
    ],
)
def test_the_report_has_a_verdict(host, size, said):
    reports = host.module("nodes.host.patches.patch_report")
    groups = (reports.GroupReport("spatial", 4, 4), reports.GroupReport("temporal", 0, 0))
    text = str(reports.PatchReport(groups, size))
    assert text.startswith("4 of 4 layers patched (spatial 4 of 4), ") and said in text
    assert ("; " in text) == (said.count(";") == 1)
