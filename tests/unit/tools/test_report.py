"""The report's page: what is in it, that it stands alone, that its numbers are those of the run."""

import re

import pytest
from report_pages import Page

import report
from remoe.analysis import load_balance
from remoe.analysis.record import RoutingRecord
from report_runs import STEPS, make_record, write_events, write_run, write_tokenizer
from reporting import parts

LAST = STEPS[-1]
SECTIONS = (
    "Loss",
    "Sparsity, lambda and the three stages",
    "Active experts by layer",
    "Load of the experts",
    "Load balance by layer",
    "Dead experts and tokens without expert",
    "Magnitude of the gates",
    "Experts a token",
    "Rare and common tokens",
    "Tokens by their number of experts",
    "Specialisation by domain",
    "Stability over checkpoints",
    "Experts that go together",
    "Sparsity of neighbouring tokens",
)


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_DPI", 30)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = str(write_tokenizer(folder / "tokenizer"))
    write_run(folder / "remoe", "relu", tokenizer)
    write_run(folder / "topk", "topk", tokenizer)
    write_events(folder / "dense", "dense")
    return folder


@pytest.fixture(scope="module")
def text_of_one(runs):
    assert report.main([str(runs / "remoe")]) == 0
    return (runs / "remoe" / "report.html").read_text()


@pytest.fixture(scope="module")
def one(text_of_one):
    return Page(text_of_one)


@pytest.fixture(scope="module")
def text_of_three(runs):
    words = [str(runs / "dense"), f"<b>of</b> $k$={runs / 'topk'}", str(runs / "remoe")]
    assert report.main([*words, "--output", str(runs / "three.html")]) == 0
    return (runs / "three.html").read_text()


@pytest.fixture(scope="module")
def three(text_of_three):
    return Page(text_of_three)


def test_the_page_of_a_whole_run_holds_every_section_in_order(one):
    assert one.titles == ["The run in numbers", *SECTIONS]


@pytest.mark.parametrize("page", ["text_of_one", "text_of_three"])
def test_the_page_refers_to_nothing_outside(page, request):
    text = request.getfixturevalue(page)
    page = Page(text)
    assert page.addresses and all(a.startswith(("#", "data:image/png;")) for a in page.addresses)
    assert not re.search(r"url\(|@import|https?:|<link|<iframe", text)
    assert page.scripts == 0


def test_each_picture_says_what_it_shows_and_is_saved_beside_the_page(one, runs):
    saved = sorted((runs / "remoe" / "report_pictures").glob("*.png"))
    assert len(saved) == len(one.images) >= 14
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in saved)
    assert all(image["alt"] for image in one.images)


def test_links_of_the_contents_go_to_sections(one, text_of_one):
    links = [address for address in one.addresses if address.startswith("#")]
    assert len(links) == len(one.titles)
    assert all(f'<section id="{link[1:]}">' in text_of_one for link in links)


def test_the_numbers_of_the_run_are_those_of_its_events_and_last_evaluation(one, runs):
    rows = one.rows("The run in numbers")
    record = RoutingRecord.load(runs / "remoe" / "routing" / f"valid-{LAST:08d}.npz")
    assert rows["method"] == ["ReMoE"]
    assert rows["steps"] == ["30"]
    assert rows["tokens seen"] == ["24,000"]
    assert rows["validation loss, last (nats a token)"] == ["5.500"]
    assert rows["step at which stage III begins"] == ["16"]
    assert rows["lambda at the end"] == ["2.37\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}10⁻⁶"]
    active = record.tokens_per_expert.sum() / record.num_tokens / record.num_layers
    assert rows["active experts a token and layer"] == [f"{active:.3f}"]


def test_the_balance_of_each_layer_is_that_of_the_last_evaluation(one):
    record = make_record(LAST, "valid")
    rows = one.rows("Load balance by layer")
    for layer in range(record.num_layers):
        loads = record.tokens_per_expert[layer]
        idle = 100 * record.experts_per_token[layer, 0] / record.num_tokens
        assert rows[f"layer {layer + 1}"] == [
            f"{loads.sum() / record.num_tokens:.2f}",
            f"{loads.std() / loads.mean():.2f}",
            f"{loads.max() / loads.mean():.2f}",
            f"{100 * load_balance.fraction_below(loads, 128):.0f}\N{NO-BREAK SPACE}%",
            "0",
            f"{idle:.1f}\N{NO-BREAK SPACE}%",
        ]


def test_the_stages_have_their_lengths_in_steps(one):
    stages = one.rows("Sparsity, lambda and the three stages")["remoe"][:3]
    assert stages == ["5 steps (1 to 5)", "10 steps (6 to 15)", "15 steps (16 to 30)"]


def test_a_token_tells_its_experts_by_layer_and_its_text_is_no_markup(one, text_of_one):
    assert "<script" not in text_of_one
    assert "&lt;script&gt;" in text_of_one
    tip = next(tip for tip in one.tips if tip.startswith("“<script>”"))
    assert re.fullmatch(
        r"“<script>” \d\.\d\d experts a layer — "
        r"layer 1: (none|[\d, ]+); layer 2: (none|[\d, ]+); layer 3: (none|[\d, ]+)",
        tip,
    )
    assert len(one.tips) == 2 * 16, "a sequence of each domain, a token a piece"


def test_several_runs_stand_beside_each_other_under_their_names(three, text_of_three):
    assert three.titles == ["Comparison of the runs", *SECTIONS]
    table = three.tables["Comparison of the runs"]
    assert table[0][1:] == ["dense", "<b>of</b> $k$", "remoe"]
    assert three.rows("Comparison of the runs")["method"] == [
        "dense",
        "TopK",
        "ReMoE",
    ]
    assert "<b>of</b>" not in text_of_three
    assert "No token has two experts in a layer: &lt;b&gt;of&lt;/b&gt; $k$." in text_of_three
    assert "Nothing recorded for: dense." in text_of_three


def test_a_run_without_routing_has_the_sections_of_its_scalars_and_says_what_adds_the_others(
    runs, tmp_path, capsys
):
    output = tmp_path / "new" / "page.html"
    assert report.main([str(runs / "dense"), "--output", str(output), "--title", "Dense"]) == 0
    page = Page(output.read_text())
    assert page.titles == ["The run in numbers", "Loss", "Not in this page"]
    text = output.read_text()
    assert "<h1>Dense</h1>" in text
    for command in ("tools/analyze_routing.py RUN", "--record-routing RUN/routing"):
        assert command in text
    told = capsys.readouterr().out
    assert "left out: Load of the experts; python tools/analyze_routing.py RUN or" in told
    assert told.endswith(f"pictures: {tmp_path / 'new' / 'page_pictures'}\nreport: {output}\n")


def test_a_run_with_maps_alone_has_the_sections_that_they_give(runs, tmp_path):
    folder = tmp_path / "only_maps"
    folder.mkdir()
    (folder / "analysis").symlink_to(runs / "topk" / "analysis")
    assert report.main([str(folder), "--tokenizer", str(runs / "tokenizer")]) == 0
    page = Page((folder / "report.html").read_text())
    scalars = SECTIONS[:3]
    assert page.titles == ["The run in numbers", *SECTIONS[3:], "Not in this page"]
    assert page.rows("Load balance by layer")["layer 1"][0] == "1.00"
    assert all(title in (folder / "report.html").read_text() for title in scalars)


def test_a_tokenizer_named_from_the_repository_is_found_above_the_run(tmp_path):
    """Arguments hold paths as they were given where training started."""
    write_tokenizer(tmp_path / "data" / "words")
    folder = tmp_path / "runs" / "remoe"
    write_run(folder, "relu", "data/words")
    assert report.main([str(folder)]) == 0
    page = Page((folder / "report.html").read_text())
    assert "Tokens by their number of experts" in page.titles
