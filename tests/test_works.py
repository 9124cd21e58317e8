"""The table of eight works: its figures are those that the tools print, and attnscope's are exact."""

import pytest

from benchmarks import works


@pytest.mark.filterwarnings("ignore")  # the tools use what torch has deprecated
@pytest.mark.parametrize("tool", [tool for tool in works.TOOLS if tool != "torchlens"])  # it replaces torch's functions
def test_a_column_has_what_the_tool_prints(tool):
    """After a change: `python -m benchmarks.works`."""
    page, found = works.written(), {work: works.figure(tool, work) for work in works.WORKS}
    if None in found.values():
        pytest.skip(f"{tool} is not installed")
    if tool == "FlopCounterMode":  # some releases of torch count fused attention on the CPU
        found = {work: each for work, each in found.items() if "ttention" not in work}
    assert found == {work: page[work][tool] for work in found}


def test_attnscope_has_the_exact_macs_of_all_works():
    page = works.written()
    assert len(page) == 8
    assert {work: figures["attnscope"] for work, figures in page.items()} == {
        work: f"{exact:,}" for work, (_, _, exact) in works.WORKS.items()
    }
