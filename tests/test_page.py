"""Pages in a real browser: no request, no error, every panel's interaction, and hostile names."""

import base64
import gzip
import itertools
import json
import math
import platform
import random
import re
import shutil
import zlib
from dataclasses import replace
from functools import cache

import pytest
import torch

import attnscope
from attnscope import SwinNetworkSpec, SwinSpec, ViTNetworkSpec, ViTSpec, attentions, explore
from attnscope.analyses.neighbourhood import look_at_neighbourhood
from attnscope.analyses.ranks import compare_ranks
from attnscope.analyses.shard import plan_shards
from attnscope.analyses.shard_verification import verify_shards
from attnscope.analyses.windows import look_at_windows
from attnscope.core.errors import AttnscopeError
from attnscope.core.text import HIDDEN
from attnscope.networks.presets import presets, read_network
from attnscope.plan.polynomial import macs_of
from attnscope.profiling.statistics import in_digits
from attnscope.render.page import page_of, render_page
from attnscope.render.page.charts import LETTER, hits_data, log_chart, steps_chart
from attnscope.render.page.document import environment, first_number, front_coded, in_columns, in_json, packed
from attnscope.render.page.scaling import field_value
from tests.golden import GALLERY, comparisons, diffs, gallery, timed
from tests.test_peaks import PEAKS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

HOSTILE = '</script><script>broken = 1</script><img src=x onerror="broken = 1"> \' onload=x ]]>{{ 7 * 7 }}\u202e\x1b[2J'
STATES = 50
DATA = re.compile(r'(?<=id="data">)(.*?)(?=</script>)', re.DOTALL)
RESULT = re.compile(r'(?<=id="result">)(.*?)(?=</script>)', re.DOTALL)
LARGEST = {"attention": 150_000, "network": 400_000}
"""Bytes of a page, by its kind."""


def hostile_module():
    """Return a module whose names would leave text, attributes, scripts and templates if they were not escaped."""
    block = torch.nn.Sequential()
    block.add_module(HOSTILE, torch.nn.Linear(8, 8))
    block.add_module("norm", torch.nn.LayerNorm(8))
    return torch.nn.Sequential(block)


def drawn(spec, **run):
    """Return the page of an attention or a network, without times."""
    return render_page(explore(spec, time=False, **run))


def timed_network(samples=60, name="nat", **options):
    """Return the report of a network with times: the most samples, or the most steps."""
    chance = random.Random(0)
    report = timed(explore(attnscope.networks.spec_class(name)(**options), time=False))

    def with_samples(row):
        mean_s = row.time.interquartile_mean_s
        samples_s = in_digits([mean_s * chance.uniform(0.9, 1.3) for _ in range(samples)])
        return replace(row, time=replace(row.time, samples_s=samples_s))

    parts = [replace(part, time_s=1.23e-3) for part in report.parts]
    return replace(report, steps=list(map(with_samples, report.steps)), parts=parts)


def swin():
    report = timed(explore(SwinSpec(shift=True), time=False, backward=True))
    return render_page(replace(report, command="attnscope swin --shift -o page.html"))


PAGES = {
    "swin": swin,
    "vit": lambda: drawn(ViTSpec()),
    "pvt": lambda: drawn(attentions.spec_class("pvt")()),
    "swin-model": lambda: drawn(SwinNetworkSpec()),
    "swin-stage": lambda: render_page(timed(explore(SwinNetworkSpec(stage=3), time=False))),
    "nat-model-timed": lambda: render_page(timed_network(depths=(3, 4, 18, 5))),
    "maxvit-model-timed": lambda: render_page(timed_network(60, "maxvit")),
    "maxvit-model": lambda: drawn(read_network("maxvit-xl-512")),
    "vit-block": lambda: drawn(ViTNetworkSpec(scope="block")),
    "trace": lambda: render_page(attnscope.trace(hostile_module(), torch.zeros(3, 8))),
    "comparison": lambda: render_page(comparisons()["compare-time"]),
    "windows": lambda: render_page(look_at_windows(SwinSpec(resolution=28, shift=True), token=(5, 9), layers=4)),
    "neighbourhood": lambda: render_page(look_at_neighbourhood(attentions.spec_class("nat")(), token=(5, 9))),
    "diff": lambda: render_page(diffs()["diff"], names=(HOSTILE, "b.json")),
    "presets": lambda: render_page(presets()),
    "peaks": lambda: render_page(PEAKS),
    "sharding": lambda: render_page(plan_shards(ViTSpec(), "ring=4", backward=True)),
}
"""A function for the page of each kind, by its name."""
NETWORKS = ("swin-model", "maxvit-model", "maxvit-model-timed", "nat-model-timed", "swin-stage", "presets")


@cache
def html_of(name):
    """Return a page by its name."""
    return PAGES[name]()


class Opened:
    """A page in a browser, with the requests and the errors that it made.

    Args:
        page: the page of Playwright.
        address: the address of its file.
    """

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.requests, self.errors = [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type in ("error", "warning") else None)
        self.go()

    def go(self, hash=""):
        self.page.goto("about:blank")
        self.page.goto(self.address + hash)

    def text(self, selector):
        return self.page.locator(selector).first.inner_text()

    @property
    def foreign(self):
        """Return the requests other than those of the page itself."""
        own = (self.address, "about:blank")
        return [url for url in self.requests if url.partition("#")[0] not in own]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Return a function that opens a page."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, accept_downloads=True)

    def open_page(html):
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8")
        return Opened(context.new_page(), file.as_uri())

    yield open_page
    context.close()


def data_of(html):
    """Return what the scripts of a page read."""
    return json.loads(unzipped(DATA.search(html)[1]))


def result_of(html):
    """Return the JSON of the run of a page."""
    return in_lines(unzipped(RESULT.search(html)[1]))


UNNAMED = """
[...document.querySelectorAll("main button, main input, main select, main svg[role], main table, nav")]
    .filter((each) => !(each.textContent || each.getAttribute("aria-label") || each.labels?.length))
    .map((each) => each.outerHTML)
"""
A4 = 703
"""The width of a printed page within its margins, in CSS pixels."""
BROKEN_NUMBERS = """
[...document.querySelectorAll("main table td[data-v]")].filter((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getClientRects().length > 1;
}).map((cell) => cell.textContent)
"""
HEADINGS = '[...document.querySelectorAll("h1, h2, h3")].map((each) => each.tagName)'


@pytest.mark.parametrize("name", PAGES)
def test_a_page_makes_no_request_and_no_error(opened, name):
    """It holds at any width, with either scheme of colors, and in print; a narrow page does not scroll sideways."""
    html = html_of(name)
    assert len(html.encode()) <= LARGEST["network" if name in NETWORKS else "attention"]
    page = opened(html)
    for media, scheme, width in (("screen", "light", 1200), ("screen", "dark", 400), ("print", "light", A4)):
        page.page.emulate_media(media=media, color_scheme=scheme)
        page.page.set_viewport_size({"width": width, "height": 900})
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width, media
    assert page.page.evaluate("window.broken") is None
    assert page.page.evaluate(UNNAMED) == []
    headings = page.page.evaluate(HEADINGS)
    assert (headings[0], headings.count("H1")) == ("H1", 1)
    assert (page.foreign, page.errors) == ([], [])


@pytest.mark.parametrize("name", ["swin", "trace", "nat-model-timed"])
def test_a_printed_number_has_one_line(opened, name):
    page = opened(html_of(name)).page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4, "height": 900})
    assert page.locator("main table td[data-v]").count() > 5
    assert page.evaluate(BROKEN_NUMBERS) == []


@pytest.mark.parametrize(("name", "most"), [("maxvit-model", 8), ("swin-model", 8), ("vit", 6)])
def test_a_printed_page_is_short(opened, name, most):
    """A network has hundreds of steps, which scroll on a screen; on paper its parts are enough."""
    page = opened(html_of(name)).page
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4"))) <= most
    has_parts = name != "vit"
    left_out = page.locator(".on-paper")
    assert left_out.count() == (2 if has_parts else 0)
    for media in ("screen", "print"):
        page.emulate_media(media=media)
        steps = page.locator("#table table")
        assert steps.is_visible() is (media == "screen" or not has_parts)
        if has_parts:
            assert page.locator("#parts table").is_visible()
            assert left_out.first.is_visible() is (media == "print")
            rows = steps.locator("tbody tr").count()
            assert (
                left_out.first.text_content() == f"{rows} rows are left out in print. The page in a browser has them."
            )


@pytest.mark.parametrize("width", [400, 1200])
def test_no_label_covers_its_text(browser, tmp_path, width):
    """`swin:shift,plan=windows` ran into the words beside it."""
    found = compare_ranks(["vit:plan=ring", "swin:plan=windows", "swin:shift,plan=windows"], [1, 2, 4, 8])
    path = tmp_path / "page.html"
    path.write_text(render_page(found))
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"file://{path}")
    wider = "[...document.querySelectorAll('.lines dt')].filter(dt => dt.scrollWidth > dt.clientWidth).length"
    assert page.evaluate(wider) == 0
    names = page.locator(".lines dt").all_inner_texts()
    assert names[:3] == ["vit:plan=ring", "swin:plan=windows", "swin:shift,plan=windows"]
    page.close()


def test_a_chart_of_bytes_has_binary_ticks_and_says_what_is_0():
    html = render_page(compare_ranks(["swin:plan=windows", "vit:plan=ring"], [1, 2, 4]))
    assert "1.0 MiB</text>" in html
    assert "Not in the chart, since it is 0: swin:plan=windows for each; vit:plan=ring for 1 (ranks)." in html
    assert html.count('<span class="key') == 0  # a single line is left
    assert log_chart("", "", "", [("", [(1, 3e3, "", "", ""), (2, 5e3, "", "", "")])], str, str, base=2) is not None


@pytest.mark.parametrize(("low", "high"), [(1e3, 2e3), (64512, 2.3e6), (1e6, 1.1e6), (5e5, 4e9), (1, 1e15)])
def test_binary_ticks_are_few_and_simple(low, high):
    points = [(1.0, low, "", "", ""), (2.0, high, "", "", "")]
    chart = log_chart("", "", "", [("bytes", points)], str, repr, base=2)
    ticks = [float(tick.text) for tick in chart.y_ticks]
    assert 3 <= len(ticks) <= 10
    assert all((tick / 2 ** int(math.log2(tick))) in (1, 1.25, 1.5, 1.75) for tick in ticks if tick >= 4)


def test_words_at_dots_do_not_cover_each_other():
    dots = [(float(10 + place), 100.0 + place, "", "", name) for place, name in enumerate(("output", "project", "mix"))]
    chart = log_chart("", "", "", [("steps", dots)], str, str, joined=False)
    boxes = []
    for dot in chart.series[0].dots:
        left = dot.x + dot.right - {"start": 0, "middle": 0.5, "end": 1}[dot.anchor] * LETTER * len(dot.label)
        boxes.append((left, left + LETTER * len(dot.label), dot.y + dot.down))
    for (left, right, y), (left2, right2, y2) in itertools.combinations(boxes, 2):
        assert right < left2 or right2 < left or abs(y - y2) >= 12


def test_each_preset_command_has_a_mark_of_its_own():
    html = render_page(presets())
    keys = re.findall(r'<span class="(key s\d(?: second)?)">', html)
    assert len(keys) == len(set(keys)) == 11


def test_the_page_of_a_plan_says_who_sends():
    html = render_page(plan_shards(SwinSpec(shift=True), "windows=2x2"))
    assert "One rank sends 129,024 B in 4 collectives; it has 25.0% of the MACs and 100.0% of the parameters." in html


def test_the_page_of_a_plan_compares_it_with_the_others_and_names_its_environment():
    report = plan_shards(SwinSpec(shift=True), "windows=2x2")
    html = render_page(report)
    rows = re.findall(r"<tr.*?</tr>", re.search(r'id="plans".*?</section>', html, re.DOTALL)[0], re.DOTALL)[1:]
    assert len(rows) == 1 + len(report.others)
    assert [row.split("<th>")[1].partition("<")[0] for row in rows] == ["windows=2x2", "windows=4", "tp=4"]
    assert 'class="bold"' in rows[0]
    assert "data-v=129024>129,024" in rows[0]
    assert all('<rect width="100.0%"/>' in row for row in rows[:2])
    assert "not legal" in rows[2]
    assert "must divide the heads (got 3 heads on 4 ranks)" in rows[2]
    assert html.count("windows=4") == 1  # the conclusion does not repeat the plans
    assert f"<dt>python</dt><dd>{platform.python_version()}</dd>" in html
    assert "<dt>torch</dt>" not in html


def test_the_page_of_a_verified_plan_names_torch():
    spec = ViTSpec(dim=8, heads=2, tokens=4)
    report = verify_shards(plan_shards(spec, "tp=2"), spec)
    assert f"<dt>torch</dt><dd>{torch.__version__}</dd>" in render_page(report)


def test_masks_are_counted_in_words():
    html = render_page(look_at_windows(SwinSpec(resolution=14, window=7, shift=True)))
    found = re.findall(r'muted">([^<]*) blocked', html)
    assert found == ["1 window, 0%", "1 window, 49.0%", "1 window, 49.0%", "1 window, 74.0%"]


def test_a_page_has_all_reasons_why_times_are_noisy():
    report = timed(explore(ViTSpec(), time=False))
    page = render_page(replace(report, noise=["the first reason", "the second reason"]))
    assert "noisy: the first reason; noisy: the second reason" in page
    assert "--details" not in page


def test_the_policy_refuses_what_a_page_does_not_have(opened):
    """Neither another script nor another host works, even if a name were not escaped."""
    page = opened(
        html_of("vit").replace("</main>", '<script>window.broken = 1</script><img src="http://127.0.0.1:9/"></main>')
    )
    assert page.page.evaluate("window.broken") is None
    assert len(page.errors) == 2
    assert all("Content Security Policy" in error for error in page.errors)


@pytest.mark.parametrize("name", ["trace", "diff"])
def test_hostile_names_are_text(opened, name):
    page = opened(html_of(name))
    assert page.page.evaluate("window.broken") is None
    shown = page.page.locator("main").inner_text() + page.page.title()
    assert "broken = 1" in shown
    assert r"{{ 7 * 7 }}\u202e\x1b[2J" in shown
    assert not HIDDEN.search(html_of(name).replace("\n", ""))
    assert page.page.locator("img").count() == 0
    assert page.page.locator("[onload], [onerror]").count() == 0
    assert page.page.locator("script").count() == 3
    assert page.errors == []


def test_the_script_has_the_names_of_all_steps(opened):
    """Names are written as changes of the name before; characters outside of the first plane count twice there."""
    names = ["", "stages.0.a", "stages.0.ab", "stages.1.ab", "stages.1.ab c", "🧠.a", "🧠.🧠 b", "🧠", "x\u202e"]
    page = opened(html_of("vit"))
    assert page.page.evaluate("(names) => unfolded(names)", front_coded(names)) == names
    assert sum(map(len, front_coded(names))) < sum(map(len, names)) + 2 * len(names)


@pytest.mark.parametrize(
    ("keys", "first"), [((), None), (("b", "c"), 1), (("c", "b"), None), (("a", "c"), None), (("a", "?"), None)]
)
def test_only_a_list_of_consecutive_steps_has_a_first_number(keys, first):
    assert first_number(keys, {"a": 0, "b": 1, "c": 2}) == first


@pytest.mark.parametrize("name", ["swin", "swin-model"])
def test_each_row_and_each_step_of_the_flow_has_its_name(opened, name):
    """A list of consecutive steps has the number of its first; the script numbers the others."""
    html = html_of(name)
    steps = opened(html).page.evaluate("data.steps")
    page = opened(html).page
    for selector in (".flow > li", "#table tbody tr"):
        found = page.locator(selector).evaluate_all("(found) => found.map((each) => each.dataset.step)")
        assert found == steps
    assert len(steps) == len(set(steps)) > 8


def test_the_columns_of_a_chart_have_their_texts_in_the_script(opened):
    """Integers are apart from the words between them, those above 2⁵³ too; other numbers stay in the words."""
    texts = ["a: 1,234 B; b: 0 B", "run 7: 12.05 ms", "007, 1,2345 and 1,000", f"{2**60 + 1:,}", "#{}", "-5 x9 1.5e-3"]
    points = [(place, 1.0, text, f"step{place}") for place, text in enumerate(texts) if place != 3]
    chart = steps_chart("", "", "", [("line", points), ("line", [(3, 1.0, texts[3], "")])], len(texts) + 1, str)
    data = hits_data(chart, {f"step{place}": place for place in range(len(texts))})
    assert data["hits"][0] == [0, 0, 1234, 0]
    assert (data["hits"][3][0], data["hits"][6]) == (None, None)
    html = html_of("vit").replace("</section>", '<svg class="hits"></svg></section>', 1)
    given = data_of(html)
    given["hits"]["conclusion"] = [data]
    page = opened(DATA.sub(packed(in_json(given)), html))
    drawn_texts = page.page.locator("#conclusion .hits title").all_text_contents()
    assert drawn_texts == texts
    assert page.page.locator("#conclusion .hits rect").last.get_attribute("x") == str(92 + 5 * 612 / 7)
    assert page.errors == []


@pytest.mark.parametrize("name", ["trace", "diff"])
def test_json_cannot_end_its_script(name):
    """It is in base64, which has no character that ends an element."""
    found = re.findall(r'<script type="application/gzip" id="(data|result)">(.*?)</script>', html_of(name), re.DOTALL)
    assert [key for key, _ in found] == ["result", "data"]
    assert all(re.fullmatch(r"[A-Za-z0-9+/]+=*", text) for _, text in found)


def test_the_script_decompresses_what_zlib_compresses(opened):
    """Stored blocks, fixed and dynamic codes, repeats of all lengths and of distances up to 32 KiB."""
    chance = random.Random(0)
    signs = "aaaabc0123456789 \n🧠é"
    texts = ["", "a", "a" * 70_000, "".join(map(chr, range(0x20, 0x3000))), DATA.search(html_of("swin"))[1] * 3]
    texts += [
        "".join(chance.choices(signs[: chance.randint(1, len(signs))], k=chance.randint(1, 3000))) for _ in range(40)
    ]
    far = "".join(chance.choices("0123456789", k=32_000))
    texts += [
        far + far[:600],
        "".join(far[at : at + size] for at, size in zip(range(1, 300), range(1, 300), strict=True)),
    ]
    page = opened(html_of("vit")).page
    kinds = set()
    for text in texts:
        for level, strategy in ((0, zlib.Z_DEFAULT_STRATEGY), (9, zlib.Z_DEFAULT_STRATEGY), (9, zlib.Z_FIXED)):
            deflate = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
            inside = gzip.compress(b"", mtime=0)[:10] + deflate.compress(text.encode()) + deflate.flush()
            kinds.add(inside[10] >> 1 & 3)
            words = base64.b64encode(inside).decode()
            assert (
                page.evaluate("(text) => inflated(Uint8Array.from(atob(text), (s) => s.charCodeAt(0)))", words) == text
            )
    assert kinds == {0, 1, 2}


def test_javascript_computes_what_python_computes(opened):
    """Random states of attentions and networks, with counts above 2⁵³ among them, as equal integers."""
    chance = random.Random(0)
    specs = {
        "swin": SwinSpec(),
        "vit": ViTSpec(),
        "linear": attentions.spec_class("linear")(),
        "swinv2": attentions.spec_class("swinv2")(),
        "huge": ViTSpec(tokens=10**6, dim=10**6, heads=1000),
        "network": SwinNetworkSpec(),
    }
    compared, largest = 0, 0
    for name, spec in specs.items():
        html = render_page(explore(spec, time=False))
        sliders = data_of(html)["panels"]["complexity"]["sliders"]
        page = opened(html)
        for _ in range(-(-STATES // len(specs))):
            slider = chance.choice(sliders)
            position = chance.choice(slider["positions"])
            page.page.locator("[data-vary]").select_option(slider["field"])
            index = slider["positions"].index(position)
            page.page.locator("[data-at]").evaluate(
                "(range, at) => { range.value = at; range.dispatchEvent(new Event('input')) }", index
            )
            changed = replace(spec, **{slider["field"]: field_value(spec, slider["field"], position["value"])})
            shown = int(page.text("[data-total]").replace(",", ""))
            assert shown == changed.plan().macs, (name, slider["field"], position["value"])
            if position["reference"]:
                reference = int(page.text("[data-reference]").replace(",", ""))
                assert reference == changed.complexity().reference_macs
            compared, largest = compared + 1, max(largest, shown)
        steps = page.page.locator("[data-formulas] td:last-child").all_text_contents()
        assert sum(int(step.replace(",", "")) for step in steps) == int(page.text("[data-total]").replace(",", ""))
    assert compared >= STATES
    assert largest > 2**53


@pytest.mark.parametrize("name", attentions.names())
def test_each_step_of_an_attention_has_a_formula_in_its_letters(name):
    """It gives the MACs of other sizes, too: of twice as many tokens, and of another batch."""
    spec = attentions.spec_class(name)()
    size = getattr(spec, spec.SIZE_FIELD)
    double = {spec.SIZE_FIELD: tuple(2 * side for side in size) if isinstance(size, tuple) else 2 * (size or 98)}
    formulas = [macs_of(step) for step in spec.plan().steps if step.macs]
    for other in (spec, replace(spec, batch=3), type(spec)(**double)):
        steps = [step for step in other.plan().steps if step.macs]
        assert [formula.value(step.sizes) for formula, step in zip(formulas, steps, strict=True)] == [
            step.macs for step in steps
        ]


def test_steps_belong_to_terms_of_the_paper_only_if_their_macs_say_so():
    """The MACs of each term's steps add up to it; if two assignments are possible, as in PVT, it has no terms."""
    found = {}
    for name in attentions.names():
        report = explore(attentions.spec_class(name)(), time=False)
        macs = {row.name: row.times * row.macs for row in report.steps}
        terms = next(panel for panel in page_of(report).panels if panel.name == "flow").content["terms"]
        if all("." not in step for term in terms for step in term.steps):
            assert [sum(macs[step] for step in term.steps) for term in terms] == [term.value for term in terms]
        assert not terms or sum(term.value for term in terms) == report.totals.macs
        found[name] = [(term.text, term.steps) for term in terms]
    assert found["pvt"] == []
    assert found["swinv2"][-1] == ("not in the formula", ["bias_mlp"])
    assert found["nat"] == [("4hwC²", ["project", "output"]), ("2K²hwC", ["score", "mix"])]


def test_letters_and_steps_light_up(opened):
    page = opened(html_of("swin"))
    lit = page.page.locator(".flow code .lit")
    assert lit.count() == 0
    page.page.locator(".flow code i", has_text="h").first.hover()
    expected = page.page.evaluate(
        "[...document.querySelectorAll('.flow code i')].filter((letter) => letter.textContent === 'h').length"
    )
    assert lit.count() == expected > 10
    assert set(page.page.locator(".flow samp .lit").all_text_contents()) == {"3", "288", "96"}
    page.page.locator('.flow [data-step="score"] .doc').hover()
    assert lit.count() == 0
    assert page.text(".formula .on .math") == "2M²hwC"
    page.page.locator('.flow [data-step="output"] .doc').hover()
    assert page.text(".formula .on").split() == ["4hwC²", "115,605,504", "project,", "output"]
    page.page.locator("h1").hover()
    assert page.page.locator(".formula .on").count() == 0


def test_steps_and_letters_by_keyboard(opened):
    """A chosen step stays, is announced, and is in the address."""
    page = opened(html_of("swin"))
    name = page.page.locator('.flow [data-step="score"] button')
    name.focus()
    page.page.keyboard.press("Enter")
    assert page.page.evaluate("location.hash") == "#step=score"
    assert name.get_attribute("aria-pressed") == "true"
    assert page.text("#said") == "score: 14,751,744 MACs"
    assert page.page.locator('.hits .on[data-step="score"]').count() == 2  # forward and backward
    page.page.keyboard.press("ArrowDown")
    assert page.page.evaluate("document.activeElement.textContent") == "add_bias"
    page.page.locator(".chip", has_text="d").focus()
    page.page.keyboard.press("Space")
    assert page.page.evaluate("location.hash") == "#step=score&axis=d"
    assert page.page.locator(".chip", has_text="d").get_attribute("aria-pressed") == "true"


FOCUSED = """
() => {
  const each = document.activeElement, nav = document.querySelector("nav");
  const { top, bottom } = each.getBoundingClientRect(), { outlineStyle, outlineWidth } = getComputedStyle(each);
  const hidden = bottom < 1 || top > innerHeight - 1
    || (bottom < nav.getBoundingClientRect().bottom && !nav.contains(each) && !each.matches(".skip"));
  const words = each.outerHTML.slice(0, 80), outline = outlineStyle + outlineWidth;
  return { at: all(FOCUSABLE).indexOf(each), words, hidden, outline };
}
"""
FOCUSABLE = "a[href], button, input, select, summary, [tabindex]"
IN_ORDER = """
() => all(FOCUSABLE).flatMap((each, at) => each.checkVisibility() && each.tagName !== "LINK"
  && !(each.type === "radio" && !each.checked) ? [at] : [])
"""


@pytest.mark.parametrize("name", ["swin", "trace"])
def test_tab_reaches_all_that_can_be_used_and_shows_the_focus(browser, tmp_path, name):
    """In the order of the page, forwards and backwards; nothing is below the navigation that stays at the top."""
    (tmp_path / "page.html").write_text(html_of(name), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1200, "height": 800}, reduced_motion="reduce")
    page = context.new_page()
    focused, in_order = (text.replace("FOCUSABLE", json.dumps(FOCUSABLE)) for text in (FOCUSED, IN_ORDER))
    for key in ("Tab", "Shift+Tab"):
        page.goto((tmp_path / "page.html").as_uri())
        expected = page.evaluate(in_order)
        assert len(expected) > 10
        found = []
        for _ in expected:
            page.keyboard.press(key)
            found.append(page.evaluate(focused))
        assert [each["at"] for each in found] == (expected if key == "Tab" else expected[::-1])
        assert [each for each in found if each["hidden"] or each["outline"] != "solid2px"] == []
    context.close()


def test_sorting_sliders_and_windows_by_keyboard(opened):
    page = opened(html_of("swin"))
    press = page.page.keyboard.press
    head = page.page.locator('#table th[data-column="macs"]')
    head.locator("button").focus()
    for key, order in (("Enter", "descending"), ("Space", "ascending"), ("Enter", "descending")):
        press(key)
        assert head.get_attribute("aria-sort") == order
    assert page.text("#said") == "Sorted by MACs, largest first"
    page.page.locator("[data-at]").focus()
    value = page.text("[data-value]")
    press("ArrowRight")
    assert page.page.locator("[data-at]").get_attribute("aria-valuetext") == f"resolution {page.text('[data-value]')}"
    assert page.text("[data-value]") != value
    page.page.locator("[data-layers]").focus()
    press("ArrowRight")
    assert page.page.locator("[data-layers]").get_attribute("aria-valuetext") == "2 layers"
    assert page.text("[data-counted]").endswith("after 2 layers")
    page.page.locator("[data-view=shifted]").focus()
    press("ArrowRight")
    assert page.page.evaluate("location.hash").endswith("layer=2&shift=plain")
    page.page.locator("#table summary").focus()
    press("Enter")
    press("Tab")
    press("Space")
    assert not page.page.locator('#table thead [data-column="step"]').is_visible()
    assert page.errors == []


def test_tables_sort_show_columns_and_have_exact_values(opened):
    page = opened(html_of("swin"))
    table = page.page.locator("#table table")
    assert table.locator('tbody tr[data-step="project"] [title="86,704,128"]').count() == 1
    first = table.locator("tbody th").first
    assert first.inner_text() == "shift"
    macs = table.locator('th[data-column="macs"] .sort')
    macs.click()
    assert (first.inner_text(), table.locator('th[data-column="macs"]').get_attribute("aria-sort")) == (
        "project",
        "descending",
    )
    macs.click()
    assert table.locator('th[data-column="macs"]').get_attribute("aria-sort") == "ascending"
    assert table.locator("tbody th").last.inner_text() == "project"
    written = table.locator('thead th[data-column="bytes_written"]')
    assert not written.is_visible()
    page.page.locator("#table summary").click()
    page.page.locator('#table input[data-column="bytes_written"]').check()
    assert written.is_visible()
    assert table.locator('tr[data-step="project"] [title="3,612,672 B"]').count() >= 1


def test_a_query_is_chosen_by_mouse_keyboard_and_text(opened):
    page = opened(html_of("neighbourhood"))
    nat = attentions.spec_class("nat")()

    def check(token):
        seen = look_at_neighbourhood(nat, token=token).seen[0]
        expected = f"Token {token[0]},{token[1]} sees {seen.tokens:,} of 3,136 tokens in one layer"
        assert page.text("[data-counted]") == expected
        assert page.page.evaluate("location.hash").endswith(f"token={token[0]},{token[1]}")

    grid = page.page.locator("[data-grid]")
    side = grid.bounding_box()["width"] / 56
    grid.click(position={"x": 30.5 * side, "y": 10.5 * side})
    check((10, 30))
    grid.press("ArrowUp")
    grid.press("ArrowRight")
    check((9, 31))
    page.page.locator("input[data-token]").fill("0,55")
    page.page.locator("input[data-token]").press("Enter")
    check((0, 55))
    grid.press("ArrowRight")
    check((0, 55))


@pytest.mark.parametrize("name", ["cswin", "maxvit", "nat", "pvt", "separable"])
def test_receptive_fields_are_those_of_python(opened, name):
    """Any token after any number of layers, as in the report of the command."""
    spec = attentions.spec_class(name)()
    sides = spec.resolution
    page = opened(render_page(explore(spec, time=False)))
    chance = random.Random(1)
    for _ in range(4):
        token = tuple(chance.randrange(side) for side in sides)
        layers = chance.randrange(1, 5)
        page.go(f"#token={token[0]},{token[1]}&layer={layers}")
        seen = look_at_neighbourhood(spec, token=token, layers=layers).seen[-1]
        assert f"sees {seen.tokens:,} of " in page.text("[data-counted]")


def test_receptive_fields_of_alternating_windows(opened):
    """The last of an even number of layers is shifted, as in Swin."""
    page = opened(html_of("windows"))
    fields = look_at_windows(SwinSpec(resolution=28, shift=True), token=(5, 9), layers=6).fields
    for field in fields[1:]:
        view = "shifted" if field.shifted else "plain"
        page.go(f"#token=5,9&layer={field.layer}&shift={view}")
        assert f"sees {field.tokens:,} of 784 tokens after {field.layer} layers" in page.text("[data-counted]")


def test_a_link_restores_the_state(opened):
    page = opened(html_of("swin"))
    page.go("#step=mix&token=3,4&shift=plain&vary=dim&at=192")
    assert page.page.locator('.flow [data-step="mix"]').get_attribute("class") == "on"
    assert page.page.locator("input[data-token]").input_value() == "3,4"
    assert page.page.locator('[data-view="plain"]').is_checked()
    assert page.text("[data-value]") == "192"
    assert int(page.text("[data-total]").replace(",", "")) == SwinSpec(dim=192, shift=True).plan().macs
    page.go("#token=99,1&layer=x&vary=nothing&at=-3&step=%3Cb%3E")  # a wrong link gives the first state
    assert page.page.locator("input[data-token]").input_value() == "28,28"
    assert page.text("[data-value]") == "56 (this run)"
    assert page.errors == []


def test_the_json_of_the_run_is_inside_and_can_be_saved(opened, tmp_path):
    report = explore(SwinSpec(), time=False)
    html = render_page(report)
    assert result_of(html) == report.to_json()
    page = opened(html)
    with page.page.expect_download() as download:
        page.page.locator("#save").click()
    assert download.value.suggested_filename == "attnscope-attention.json"
    download.value.save_as(tmp_path / "saved.json")
    assert (tmp_path / "saved.json").read_text(encoding="utf-8") == report.to_json()


def test_the_saved_json_of_a_network_is_that_of_the_command(opened, tmp_path):
    """The script restores each line from its column, and each number as Python wrote it, such as 1e-05 and 1.0."""
    report = timed_network()
    page = opened(render_page(report)).page
    with page.expect_download() as download:
        page.locator("#save").click()
    download.value.save_as(tmp_path / "saved.json")
    assert (tmp_path / "saved.json").read_text(encoding="utf-8") == report.to_json()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[\n  1.0,\n  -1e-05\n]", '{\n  "a\\"b: ": "c",\n  "": [\n    "\\t: \\n"\n  ]\n}\n', '"\u2028🧠"\n\n'],
)
def test_the_columns_of_json_give_its_lines(opened, text):
    page = opened(html_of("vit")).page
    assert in_lines(in_columns(text)) == page.evaluate("(text) => inLines(text)", in_columns(text)) == text


@pytest.mark.parametrize("name", PAGES)
def test_every_page_ends_with_its_command_and_environment(name):
    panels = re.findall(r'<section[^>]* id="([\w-]+)"', html_of(name))
    assert panels[0] == "conclusion"
    assert panels[-1] == "environment"


def test_commands_without_a_spec_are_in_their_pages(attnscope):
    for words in (("presets",), ("shard", "vit", "--plan", "tp=2", "--no-verify")):
        page = attnscope(*words, "--format", "html").stdout
        assert f'<code id="command">attnscope {" ".join(words)} --format html</code>' in page


def test_a_traced_module_has_its_memory_over_the_calls(opened):
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Linear(32, 8))
    report = attnscope.trace(model, torch.zeros(1, 5, 8))
    page = opened(render_page(report))
    texts = page.page.locator("#memory .hits title").all_text_contents()
    assert texts == [f"inference: {row.bytes_live:,} B" for row in report.steps]
    assert "800 Bytes peak activation memory" in page.text("#memory")
    assert "training" not in page.text("#memory")


def test_sequences_and_volumes_have_the_keys_of_a_query_in_words(opened):
    expected = {
        "vit": ["197 for each of 197 queries", "query at token 98", "attends to tokens 0–196"],
        "cross": ["196 for each of 100 queries", "attends to tokens 0–195"],
        "swin3d": ["392 for each of", "query at frame", "frames", "rows 28–34, columns 28–34"],
    }
    for name, words in expected.items():
        text = opened(render_page(explore(attentions.spec_class(name)(), time=False))).text("#neighbourhood")
        assert all(each in text for each in words), text


def test_the_navigation_shows_all_sections_of_a_page_with_many(opened):
    page = opened(render_page(explore(attentions.spec_class("hiera")(), time=False)))
    page.page.set_viewport_size({"width": 1000, "height": 800})
    assert page.page.locator("nav a").count() >= 8
    assert page.page.evaluate("(list => list.scrollWidth <= list.clientWidth)(document.querySelector('nav ul'))")


def test_a_tree_folds(opened):
    model = torch.nn.Sequential(
        *(torch.nn.Sequential(torch.nn.Linear(8, 8 + n), torch.nn.Linear(8 + n, 8)) for n in (0, 1))
    )
    page = opened(render_page(attnscope.trace(model, torch.zeros(1, 5, 8))))
    rows = page.page.locator("#modules tbody tr")
    before = rows.count()
    shown = page.page.locator("#modules tbody tr:not(.folded)")
    assert shown.count() == before
    fold = page.page.locator("#modules .fold").first
    fold.focus()
    page.page.keyboard.press("ArrowLeft")
    assert fold.get_attribute("aria-expanded") == "false"
    assert shown.count() < before
    page.page.locator("[data-unfold=all]").click()
    assert shown.count() == before
    page.page.locator("[data-unfold=none]").click()
    assert shown.count() == 2


def test_presets_are_found(opened):
    page = opened(html_of("presets"))
    page.page.locator("[data-filter]").fill("swin-l 384")
    rows = page.page.locator("#table tbody tr:not(.unfound)")
    assert [row.split()[0] for row in rows.all_inner_texts()] == ["swin-l-384"]


def test_pages_can_be_read_without_script(browser, tmp_path):
    """The text of all results is in the page itself."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    (tmp_path / "page.html").write_text(html_of("swin"), encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    text = page.locator("main").inner_text()
    context.close()
    for words in ("80% of the MACs", "(b r s) n (3 h d)", "86.7 M", "115,605,504", "145,108,992"):
        assert words in text


def test_without_jinja_one_line_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jinja2", None)
    environment.cache_clear()
    with pytest.raises(AttnscopeError, match=r"^jinja2 is not installed; run python -m pip install jinja2$"):
        render_page(PEAKS)
    environment.cache_clear()


def test_the_gallery_is_up_to_date():
    """After a change of a page: `python -m tests.golden`. The JSON is unpacked, since releases of zlib differ."""
    index = (GALLERY.parent / "pages.md").read_text(encoding="utf-8")
    for name, page in gallery().items():
        kept = (GALLERY / name).read_text(encoding="utf-8")
        assert unpacked(kept) == unpacked(page), name
        assert f"](pages/{name})" in index


def unpacked(html):
    """Return a page with the JSON of its run and the data of its scripts as text."""
    html = DATA.sub(lambda found: unzipped(found[1]), html)
    return RESULT.sub(lambda found: in_lines(unzipped(found[1])), html)


def unzipped(text):
    """Return a text from gzip in base64."""
    return gzip.decompress(base64.b64decode(text)).decode()


def in_lines(text):
    """Return the text whose lines are in columns, as the script does it."""
    order, *columns = text.split("\n")
    starts, values = zip(*(column.split("\t", 1) for column in columns), strict=True)
    rest = [iter(value.split("\t")) for value in values]
    return "\n".join(starts[int(column)] + next(rest[int(column)]) for column in order.split(" "))


def test_a_comparison_of_two_modules_has_a_row_for_each(attnscope, tmp_path):
    module = "from torch import nn\n\ndef a():\n    return nn.Linear(8, 8)\n\ndef b():\n    return nn.Linear(8, 16)\n"
    (tmp_path / "net.py").write_text(module)
    words = (f"{tmp_path}/net.py:a", f"{tmp_path}/net.py:b", "--input", "1,5,8", "--format", "html")
    page = attnscope("compare", *words).stdout
    assert "Each contender in numbers" in page
    assert all(f"net.py:{name}" in page for name in "ab")


@pytest.mark.parametrize("name", ["comparison", "network"])
def test_a_page_has_no_placeholder(name):
    text = re.sub(
        r"<(script|style).*?</\1>", "", (GALLERY / f"{name}.html").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert re.findall(r"\{\w+\}", text) == []


@pytest.mark.parametrize("form", ["html", "md"])
def test_what_fits_in_memory_is_in_the_page_and_in_markdown(attnscope, form):
    done = attnscope(
        "compare", "vit", "swin", "--over", "resolution=14,28", "--memory-limit", "16GiB", "--format", form
    )
    assert "largest that fits in 16.0 GiB: batch at 28×28 tokens" in done.stdout
    assert "7,577" in done.stdout


def test_a_large_ratio_is_a_plain_number(opened):
    page = opened(drawn(attentions.spec_class("nat")(resolution=448)))
    assert page.text("[data-ratio]") == "1,135× as many MACs"


def test_the_borders_of_windows_are_those_of_the_shown_view(opened):
    """They are at 3 and 10 with a shift, and at 7 without one."""
    page = opened(render_page(look_at_windows(SwinSpec(resolution=14, shift=True))))
    borders = page.page.locator("#neighbourhood .borders")
    assert borders.get_attribute("d") == "M0 3H14M0 10H14M3 0V14M10 0V14"
    page.page.locator("[data-view=plain]").check()
    assert borders.get_attribute("d") == "M0 7H14M7 0V14"


def test_print_repeats_headings_and_keeps_the_colors_of_a_legend(opened):
    """Chromium does not repeat a heading that is in a button; without exact colors, a legend has no signs."""
    page = opened(html_of("swin")).page
    page.emulate_media(media="print")

    def style(selector, name):
        return page.locator(selector).first.evaluate(f"(found) => getComputedStyle(found).{name}")

    assert style("#table .sort", "display") == "contents"
    assert style("#neighbourhood .swatch", "printColorAdjust") == "exact"
    assert not page.locator("#token-help").is_visible()


def test_a_click_on_a_dot_of_the_presets_shows_its_row(opened):
    page = opened(html_of("presets"))
    page.page.set_viewport_size({"width": 1200, "height": 800})
    page.page.locator("main circle[data-step]").last.dispatch_event("click")
    inside = """() => {
      const place = document.querySelector("tr.on").getBoundingClientRect();
      return place.top > 0 && place.bottom < innerHeight;
    }"""
    page.page.wait_for_function(inside, timeout=3000)
    page.go("#step=cswin-b-384")
    page.page.wait_for_function(inside, timeout=3000)


@pytest.mark.parametrize("name", ["vit-block", "swin-model"])
def test_no_label_of_an_axis_is_cut_on_a_narrow_page(opened, name):
    page = opened(html_of(name)).page
    page.set_viewport_size({"width": 400, "height": 900})
    lefts = page.locator("#memory .tick").evaluate_all(
        "(ticks) => ticks.map((tick) => tick.getBoundingClientRect().left)"
    )
    assert min(lefts) >= 0
    assert page.locator("#memory .chart svg").last.evaluate("(found) => getComputedStyle(found).overflow") == "visible"
