"""Golden screens, no truncated lines, and columns that add up to the printed totals in every format."""

import csv
import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from rich.cells import cell_len

from attnscope import SwinNetworkSpec, SwinSpec, ViTSpec, explore, networks, trace
from attnscope.analyses.windows import look_at_windows
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.plan.roofline import Roofline
from attnscope.render import render, words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.compare import point_columns
from attnscope.render.conclusion import macs_sentence
from attnscope.render.diff import cost_columns, diff_columns
from attnscope.render.meanings import MEANINGS
from attnscope.render.parts import part_columns
from attnscope.render.peaks import peak_columns
from attnscope.render.screen import PIPE, UNBOUNDED, Screen
from attnscope.render.steps import step_columns
from attnscope.render.trace import call_columns, line_columns
from attnscope.render.windows import render_windows
from attnscope.tracing.folding import GROUPS
from tests.golden import FOLDER, WIDTHS, comparisons, reports, screens, timed
from tests.test_peaks import PEAKS

SCREENS = screens()


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_as_expected(name):
    """After an intended change, run `python -m tests.golden` and review the difference."""
    assert SCREENS[name] == (FOLDER / name).read_text(encoding="utf-8")


def test_every_golden_file_is_a_screen():
    assert {path.name for path in FOLDER.iterdir()} == {*SCREENS, "explorer.svg"}  # that of test_explorer


@pytest.mark.parametrize(
    "name", [name for name in SCREENS if name.endswith(("60.txt", "80.txt", "120.txt", "ascii.txt"))]
)
def test_no_line_is_wider_than_the_screen(name):
    width = int(re.search(r"\d+", name.removeprefix("swin-shift").removeprefix("vit"))[0])
    assert max(map(cell_len, SCREENS[name].splitlines())) <= width


def _heads(screen):
    line = next(line for line in screen.splitlines() if line.startswith((" step ", " part ")))
    return re.findall(r"\S.*?(?=\s{2,}|$)", line)


@pytest.mark.parametrize("name", reports())
def test_hidden_columns_are_named(name):
    report = reports()[name]
    wide = render(report, "table", Screen())
    assert "hidden" not in wide
    for width in filter(None, WIDTHS.values()):
        screen = render(report, "table", Screen(width=width))
        heads, every = (_heads(text) for text in (screen, wide))
        (line,) = re.findall(r"^ (\d+) columns? hidden \(--wide shows all\): (.*)$", screen, re.MULTILINE) or [(0, "")]
        missing = [head for head in every if head not in heads]
        assert len(missing) == int(line[0])
        named = line[1].removesuffix(", …").split(", ") if missing else []
        assert named == missing[: len(named)]
        assert len(named) == len(missing) or line[1].endswith(", …")


TABLES = (
    "vit --no-time --backward --memory",
    "swin --scope model --no-time",
    "compare vit swin swin:shift cross --over resolution=7,10",
    "compare --over resolution=7,14 --over window=2,7",
    "compare --stages --quantity peak",
    "windows --resolution 14 --shift",
    "windows --resolution 10 --shift --token 5,9 --layers 4",
    "windows --positions --order",
    "presets",
)


@pytest.mark.parametrize("line", TABLES)
def test_no_two_columns_have_the_same_name(attnscope, line):
    """On a terminal, the headings are above a rule, with two or more spaces between them."""
    in_csv, markdown, screen = (attnscope(*line.split(), "--format", form).stdout for form in ("csv", "md", "table"))
    lines = itertools.pairwise(markdown.splitlines())
    heads = [in_csv.splitlines()[0].split(",")]
    heads += [above.strip("| ").split(" | ") for above, rule in lines if rule.startswith("| --")]
    for block in re.split(r"\n\n+", screen):  # a second rule is above the totals
        ruled = [above for above, rule in itertools.pairwise(block.splitlines()) if re.fullmatch(" *──+", rule)]
        heads += [re.split("  +", head.strip()) for head in ruled[:1]]
    assert len(heads) >= 3 or line.startswith("windows")  # most of these are pictures
    for names in heads:
        assert len(set(names)) == len(names), names


def test_no_two_columns_of_measured_reports_have_the_same_name():
    full = replace(timed(explore(ViTSpec(), time=False, backward=True)), peaks=PEAKS, focus=("memory", "roofline"))
    network = timed(explore(SwinNetworkSpec(), time=False, backward=True))
    module = torch.nn.MultiheadAttention(8, 2)
    traced = trace(module, *[torch.zeros(5, 1, 8)] * 3, time=True, budget=0.01)
    tables = [step_columns(full), step_columns(network), part_columns(network), call_columns(traced)]
    tables += [line_columns(replace(traced, group=group)) for group in GROUPS]
    tables += [point_columns(comparisons()["compare-time"]), diff_columns(), cost_columns(), peak_columns()]
    for columns in tables:
        keys = [column.key for column in columns]
        titles = [column.title for column in columns if column.rank is not None]
        assert len(set(keys)) == len(keys), keys
        assert len(set(titles)) == len(titles), titles


@pytest.mark.parametrize("spec", [SwinSpec(), SwinNetworkSpec()], ids=["steps", "parts"])
def test_with_memory_in_focus_live_is_dropped_last(spec):
    """The order of dropping is bwd live, training, saved, live."""
    report = explore(spec, time=False, focus=["memory"])
    order = ["live", "saved", "training", "bwd live"]
    shown = []
    for width in range(30, 120):
        heads = _heads(render(report, "table", Screen(width=width)))
        shown.append([head for head in order if head in heads])
        assert shown[-1] == order[: len(shown[-1])]
        assert "output shape" not in heads or len(shown[-1]) == 4
    assert order[:1] in shown
    assert order in shown


def test_a_negative_remainder_is_described_in_words():
    report = replace(reports()["swin-shift"], focus=["details"])
    assert "whole 3.63 ms, remainder 3.62 μs ·" in render(report, "table", Screen())
    negative = replace(report, time=replace(report.time, remainder_s=-24.3e-6))
    assert "whole 3.63 ms, exceeded by the steps by 24.3 μs ·" in render(negative, "table", Screen())


def test_another_global_attention_has_its_own_name():
    report = timed(explore(ViTSpec(), time=False))
    named = replace(report, spec={**report.spec, "attention": "qknorm"})
    assert " measured  global attention 130 ms, qknorm 10.7 ms (11.8–12.5× faster)\n" in render(
        named, "table", Screen()
    )


def test_numbers_and_units_are_separated_by_one_kind_of_space():
    assert not re.search("[\u00a0\u2007\u2009\u202f]", "".join(SCREENS.values()))


def test_ascii_is_ascii_and_color_adds_only_color():
    assert SCREENS["swin-shift-80-ascii.txt"].isascii()
    plain = re.sub(r"\x1b\[[\d;]*m", "", SCREENS["swin-shift-80-color.txt"])
    assert [line.rstrip() for line in plain.splitlines()] == SCREENS["swin-shift-80.txt"].splitlines()


def test_a_multiplication_dot_is_an_asterisk_in_ascii():
    screen = Screen(ascii=True)
    assert screen.text("row = (dy + 2)·5 · q·kᵀ") == "row = (dy + 2)*5 - q*k^T"
    look = render_windows(look_at_windows(SwinSpec(window=3), positions=True), "table", screen)
    assert "row = (dy + 2)*5 + (dx + 2)" in look


def test_the_stage_of_a_letter_is_readable_in_ascii():
    assert Screen(ascii=True).text("3p²hw₁C₁₂ + Σ(hwC²)") == "3p^2hw_1C_12 + sum (hwC^2)"


def test_quiet_hides_the_suggested_next_command():
    assert "next" in SCREENS["swin-shift-80.txt"]
    assert "next" not in SCREENS["swin-shift-quiet.txt"]


@pytest.mark.parametrize("name", reports())
def test_csv_sums_to_its_totals(name):
    """A row of several identical modules has their sum and their number."""
    report = reports()[name]
    rows = list(csv.DictReader(io.StringIO(render(report, "csv", Screen()))))
    *steps, total = rows
    assert total["step"] == "total"
    for key in ("macs", "flops", "other_flops", "params", "bytes_read", "bytes_written"):
        assert sum(int(row[key]) for row in steps) == int(total[key])
    assert [int(row.get("times", 1)) for row in steps] == [row.times for row in report.steps]
    assert [row["step"] for row in steps] == [row.name for row in report.steps]
    if report.time:
        assert sum(float(row["time_s"]) for row in steps) == pytest.approx(float(total["time_s"]))
        assert float(total["time_s"]) == pytest.approx(report.time.steps_sum_s)


def test_a_view_on_a_gpu_is_a_word_on_screens_and_a_number_in_csv():
    report = reports()["swin-shift"]
    report.environment["device"] = "cuda:0"
    screen, table = (render(report, form, Screen()) for form in ("table", "csv"))
    (line,) = (line for line in screen.splitlines() if line.startswith(" split_heads"))
    assert line.split("view")[1].split()[0] == words.NONE  # it has no share of the time
    *steps, total = csv.DictReader(io.StringIO(table))
    assert sum(float(row["time_s"]) for row in steps) == pytest.approx(float(total["time_s"]))
    assert min(float(row["time_s"]) for row in steps) > 0


def test_no_step_is_named_if_steps_without_macs_take_no_time():
    report = replace(reports()["swin-shift"], focus=["details"])
    assert "without MACs, mostly" in render(report, "table", Screen())
    steps = [
        row if row.macs else replace(row, time=replace(row.time, interquartile_mean_s=0.0)) for row in report.steps
    ]
    screen = render(replace(report, steps=steps), "table", Screen())
    assert "0% of the time is spent in steps without MACs" in screen
    assert "mostly" not in screen


def test_a_view_on_a_gpu_has_no_bound():
    report = reports()["swin-shift"]
    report.environment["device"] = "cuda:0"
    bound = Roofline(1e-6, "compute", 1.0, 1e-6)
    steps = [replace(row, roofline=bound if row.bytes_read else None) for row in report.steps]
    table = render(replace(report, peaks=PEAKS, steps=steps), "md", Screen())
    (line,) = (line for line in table.splitlines() if line.startswith("| split_heads"))
    assert words.UNKNOWN not in line


@pytest.mark.parametrize("name", reports())
def test_markdown_sums_to_its_totals(name):
    """Subtotals are bold, and precede the rows that they sum up."""
    lines = render(reports()[name], "md", Screen()).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heads, _, *rows, total = table
    stages = [index for index, row in enumerate(rows) if row[0].startswith("**")]
    assert len(stages) == (4 if reports()[name].parts else 0)
    for title in {"MACs", "FLOPs", "elementwise", "params", "read", "written", "saved"}.intersection(heads):
        column = heads.index(title)
        numbers = [int(row[column].strip("*").replace(",", "").removesuffix(" B")) for row in rows]
        assert sum(number for index, number in enumerate(numbers) if index not in stages) == int(
            total[column].replace(",", "").removesuffix(" B")
        )
        for start, end in itertools.pairwise([*stages, len(rows) - 1] if stages else []):
            assert numbers[start] == sum(numbers[start + 1 : end])


@pytest.mark.parametrize("name", reports())
def test_json_sums_to_its_totals(name):
    data = json.loads(render(reports()[name], "json", Screen()))
    for key in ("macs", "flops", "other_flops", "params", "bytes_read", "bytes_written"):
        assert sum(row["times"] * row[key] for row in data["steps"]) == data["totals"][key]


def test_a_screen_shows_the_values_of_the_json():
    report = reports()["swin-shift"]
    screen = render(report, "table", Screen())
    for row in report.steps:
        assert row.name in screen
        assert row.doc in screen
        assert row.pattern in screen
    assert f"{report.totals.macs:,} MACs (290 MFLOPs) by shapes and closed form ✓" in screen
    assert "11.8–12.5× faster" in screen


def test_a_picture_loads_nothing_from_another_host():
    svg = render(reports()["swin-shift"], "svg", Screen())
    ET.fromstring(svg)
    urls = set(re.findall(r"https?://[^\"')\s]+", svg))
    assert urls == {"http://www.w3.org/2000/svg"}
    assert "@import" not in svg
    assert "@font-face" not in svg


def test_a_disagreement_is_reported():
    report = reports()["vit"]
    notes = ["score: counts disagree: shapes 300, closed form 1"]
    audit = replace(report.audit, agree=False, notes=notes, uncounted=["aten::mystery"])
    report = replace(report, audit=audit)
    screen = render(report, "table", Screen())
    assert "shapes and closed form disagree ✗" in screen
    assert "score: counts disagree: shapes 300, closed form 1" in screen
    assert "not counted: aten::mystery" in screen


class TestWords:
    def test_unknown_differs_from_zero(self):
        assert (words.metric(None), words.metric(0)) == ("?", "–")
        assert (words.binary(None), words.binary(0)) == ("?", "–")
        assert (words.percent(None), words.percent(0)) == ("?", "–")

    def test_numbers(self):
        assert words.metric(145_108_992) == "145 M"
        assert words.seconds(0.001368) == "1.37 ms"
        assert words.binary(1_815_552) == "1.7 MiB"
        assert words.metric(10**40) == "1.00e+40"
        assert [words.rounded(value) for value in (2.6e9, 3.1e10, 9.6e11)] == ["3 G", "30 G", "1 T"]
        assert [words.times(ratio) for ratio in (1.001, 13.81, 123.4, 999.7, 12_345)] == [
            *("1.00×", "13.8×", "123×", "1,000×", "12,345×")
        ]

    def test_bars(self):
        assert [words.bar(share).rstrip() for share in (0, 0.1, 0.5, 1, None)] == ["", "▊", "████", "████████", ""]


class TestColumns:
    rows: ClassVar = [("a", 1, 0.5), ("b", None, 0.25)]
    columns: ClassVar = [
        Column("name", "name", lambda row: row[0], right=False, total="all"),
        Column("n", "n", lambda row: row[1], words.metric, rank=1),
        Column("x_s", "x", lambda row: row[2], words.seconds, rank=2, total=0.75),
        Column("hidden", "hidden", lambda row: "-", rank=None),
    ]

    def test_the_highest_rank_is_dropped_first(self):
        assert fit(self.columns, self.rows, Screen()) == (self.columns[:3], [])
        assert fit(self.columns, self.rows, Screen(width=11)) == (self.columns[:2], ["x"])
        assert fit(self.columns, self.rows, Screen(width=1)) == (self.columns[:1], ["n", "x"])

    def test_an_empty_column_is_dropped_before_one_with_content(self):
        empty = Column("e", "e", lambda row: "", rank=0.5)
        columns = [self.columns[0], empty, *self.columns[1:]]
        assert fit(columns, self.rows, Screen(width=10)) == (self.columns[:2], ["e", "x"])
        assert fit(columns, self.rows, Screen(width=80)) == (columns[:4], [])

    def test_a_cell_continues_on_a_new_line_after_the_separator(self):
        column = Column("c", "c", lambda row: "all-gather x; halo y", breaks="; ")
        assert column.cells(self.rows, Screen())[1] == "all-gather x;\nhalo y"
        assert column.width(self.rows, Screen()) == len("all-gather x;")
        assert to_csv([column], self.rows[:1]) == "c\nall-gather x; halo y\n"

    def test_forms(self):
        assert to_csv(self.columns, self.rows) == "name,n,x_s,hidden\na,1,0.5,-\nb,,0.25,-\ntotal,,0.75,\n"
        assert to_markdown(self.columns, self.rows).splitlines() == [
            "| name | n | x |",
            "| --- | ---: | ---: |",
            "| a | 1 | 500 ms |",
            "| b | ? | 250 ms |",
            "| all |  | 750 ms |",
        ]
        assert Screen().draw([rows_table(self.columns[:2], self.rows, Screen())]).splitlines()[2] == " a     1"


@pytest.mark.parametrize(
    ("color", "env", "expected"),
    [
        ("auto", {}, False),
        ("auto", {"FORCE_COLOR": "1"}, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_the_screen_of_a_pipe(color, env, expected):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert Screen.of(stream, color, env=env) == Screen(width=PIPE, color=expected, pages=False)
    assert Screen.of(stream, env={"COLUMNS": "72"}).width == 72
    assert Screen.of(stream, env={"COLUMNS": "wide"}).width == PIPE
    assert Screen.of(stream, wide=True, env={}).width is None
    assert Screen.of(stream, env={"COLUMNS": "9" * 30}).width == UNBOUNDED
    assert Screen.of(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), env={}).ascii


def test_every_column_has_a_meaning():
    full = replace(timed(explore(ViTSpec(), time=False, backward=True)), peaks=PEAKS, focus=("memory", "roofline"))
    network = timed(explore(SwinNetworkSpec(), time=False, backward=True))
    traced = trace(torch.nn.MultiheadAttention(8, 2), *[torch.zeros(5, 1, 8)] * 3, time=True, budget=0.01)
    tables = [step_columns(full), step_columns(network), part_columns(network), line_columns(traced)]
    shown = {column.key for columns in tables for column in columns if column.title and column.rank is not None}
    assert not shown - MEANINGS.keys()
    assert all(meaning.endswith(".") for meaning in MEANINGS.values())


def test_noise_is_named_with_its_remedy_and_the_rest_under_details():
    report = reports()["swin-shift"]
    reasons = ["another process was busy: wait", "the runs spread by 12%: raise --budget"]
    noisy = replace(report, noise=reasons, warnings=[*reasons, "something else"])
    screen = render(noisy, "table", Screen(width=100))
    assert " timing    noisy: another process was busy: wait (and 1 more: --details)\n" in screen
    assert " warning   something else\n" in screen
    full = render(replace(noisy, focus=["details"]), "table", Screen(width=100))
    assert all(f"noisy: {reason}\n" in full for reason in reasons)
    steady = render(replace(report, noise=[], warnings=[]), "table", Screen(width=100))
    assert " timing    steady ±1% (60 runs, 1 thread)\n" in steady


def test_the_conclusion_of_a_network_has_no_blocks_beside_what_blocks_are_made_of():
    """MaxViT had "first block is 14%, block is 13%", which were its convolutions."""
    for name, expected in (
        ("maxvit", "41% of the MACs are in the MLPs; the MBConvs are 27%, the projections are 20%, stem is 9%"),
        ("hiera", "59% of the MACs are in the MLPs; the projections are 34%, attention itself is 6%"),
    ):
        sentence = macs_sentence(explore(networks.asked(name, {}, "model"), time=False))
        assert sentence.startswith(expected)
        assert "block" not in sentence


def test_the_conclusion_is_about_time_only_if_much_of_it_has_no_macs():
    report = reports()["swin-shift"]
    assert " result    80% of the MACs are in the projections; attention itself is 20%\n" in render(
        report, "table", Screen(width=100)
    )
    steps = [
        row if row.name != "softmax" else replace(row, time=replace(row.time, interquartile_mean_s=2e-3))
        for row in report.steps
    ]
    total = sum(row.time.interquartile_mean_s for row in steps)
    slow = replace(report, steps=steps, time=replace(report.time, steps_sum_s=total))
    share = sum(row.time.interquartile_mean_s for row in steps if not row.macs) / total
    assert f" result    {share:.0%} of the time is spent in steps without MACs, most in softmax\n" in render(
        slow, "table", Screen(width=100)
    )


def test_columns_that_do_not_fit_are_counted_and_named():
    names = ["one", "two", "three"]
    for width, shown in ((100, "one, two, three"), (50, "one, two, …"), (20, "one, …")):
        (line,) = Screen(width=width).draw(Screen(width=width).hidden(names)).splitlines()[:1]
        assert line.startswith(" 3 columns hidden") or width == 20
        assert width == 20 or line == f" 3 columns hidden (--wide shows all): {shown}"
    assert Screen(width=80).hidden([]) == []


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_conclusion_does_not_depend_on_the_kernel(kernel):
    """A fused step has parameters, those of its bias, but multiplies activations."""
    shown = render(explore(SwinSpec(shift=True, kernel=kernel), time=False), "table", Screen(width=100))
    assert " result    80% of the MACs are in the projections; attention itself is 20%\n" in shown


def test_small_shares_are_not_rounded_to_nothing():
    assert [words.rough_percent(share) for share in (0, 0.001, 0.29, 0.999, 1)] == ["0%", "<1%", "29%", ">99%", "100%"]
    shown = render(explore(ViTSpec(tokens=1), time=False), "table", Screen(width=100))
    assert " result    >99% of the MACs are in the projections; attention itself is <1%\n" in shown


def test_a_formula_that_leaves_macs_out_says_so():
    shown = render(explore(SwinV2Spec(), time=False), "table", Screen(width=120))
    assert "201,902,592 MACs (404 MFLOPs) by shapes and closed form ✓" in shown
    assert "Ω(W-MSA) = 4hwC² + 2M²hwC = 201,326,592 MACs" in shown
    assert "the formula leaves out 576,000 MACs" in shown


def test_a_wide_column_leaves_its_room_to_others():
    screen = render(explore(SwinSpec(), time=False), "table", Screen(width=120))
    assert "  live\n" in screen
    assert "1 column hidden" not in screen.split("letters")[0]
