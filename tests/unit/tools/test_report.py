"""The report's page: what is in it, that it stands alone, that its numbers are those of the run."""

import re
from html.parser import HTMLParser

import pytest
from torch.utils.tensorboard import SummaryWriter

import report
from remoe.analysis import load_balance
from remoe.analysis.record import RoutingRecord
from report_runs import STEPS, make_record, write_events, write_run, write_tokenizer
from reporting import page, parts

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


class Page(HTMLParser):
    """Titles, tables by section, addresses, tooltips and pictures of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.titles, self.tables, self.addresses, self.tips, self.images = [], {}, [], [], []
        self.scripts, self._open = 0, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        words = dict(attributes)
        self.addresses += [words[name] for name in ("src", "href", "action") if name in words]
        self.tips += [words["data-tip"]] if "data-tip" in words else []
        self.images += [words] if tag == "img" else []
        self.scripts += tag == "script"
        if tag == "tr":
            self.tables.setdefault(self.titles[-1], []).append([])
        if tag == "h2":
            self.titles.append("")
        if tag in ("th", "td"):
            self.tables[self.titles[-1]][-1].append("")
        if tag in ("h2", "th", "td"):
            self._open = tag

    def handle_endtag(self, tag):
        self._open = None if tag == self._open else self._open

    def handle_data(self, data):
        if self._open == "h2":
            self.titles[-1] += data
        elif self._open:
            self.tables[self.titles[-1]][-1][-1] += data

    def rows(self, title: str) -> dict[str, list[str]]:
        """Cells of a section's table rows by their first cell."""
        return {row[0]: row[1:] for row in self.tables[title]}


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


def _refused(capsys, *words) -> str:
    assert report.main([str(word) for word in words]) == 1
    message = capsys.readouterr().err
    assert message.startswith("report.py: ") and message.count("\n") == 1
    return message


def test_a_run_that_is_not_there_is_named(tmp_path, capsys):
    assert f"{tmp_path / 'no'}: no such folder" in _refused(capsys, tmp_path / "no")


def test_a_folder_without_a_run_says_how_to_make_one(tmp_path, capsys):
    assert "train with --tensorboard-dir" in _refused(capsys, tmp_path)


def test_the_page_of_several_runs_needs_a_place(runs, capsys):
    assert "--output: say which file" in _refused(capsys, runs / "topk", runs / "remoe")


def test_two_runs_of_one_name_are_told_apart_by_hand(runs, capsys):
    message = _refused(capsys, runs / "topk", f"topk={runs / 'remoe'}")
    assert "RUN: two are called 'topk'" in message and "NAME=PATH" in message


def test_a_page_that_is_no_page_is_refused(runs, capsys):
    assert "page.png: end it in .html" in _refused(capsys, runs / "dense", "--output", "page.png")


def test_a_place_that_cannot_be_written_is_named(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "page.html"
    message = _refused(capsys, runs / "dense", "--output", output)
    assert f"--output {output}: cannot write to {tmp_path / 'file'}" in message
    (tmp_path / "page_pictures").touch()  # where the pictures would go
    message = _refused(capsys, runs / "dense", "--output", tmp_path / "page.html")
    assert "page_pictures: File exists" in message and "by --output" in message


def test_a_page_that_is_a_folder_is_refused(runs, tmp_path, capsys):
    (tmp_path / "page.html").mkdir()
    message = _refused(capsys, runs / "dense", "--output", tmp_path / "page.html")
    assert "page.html: is a folder; name a file" in message


def test_runs_whose_names_differ_in_signs_or_case_alone_keep_their_pictures(runs, tmp_path):
    names = ["a/b", "a_b", "A b", "x" * 200, "x" * 201]
    pictures = [parts.Picture(parts.file_name(f"load-{name}"), name, "", b"") for name in names]
    section = parts.Section("Load", "", pictures)
    folder = page.write([section], [], "title", tmp_path / "page.html")
    found = sorted(path.name for path in folder.iterdir())
    long = f"load-{'x' * 115}"
    assert found == sorted(
        ["load-a_b.png", "load-a_b-2.png", "load-A_b-3.png", f"{long}.png", f"{long}-2.png"]
    )


def _events(folder, **curves):
    with SummaryWriter(str(folder)) as writer:
        for tag, values in curves.items():
            for step, value in enumerate(values, 1):
                writer.add_scalar(tag.replace("lm_", "lm "), value, step)
    return folder


def test_events_of_another_program_are_refused(tmp_path, capsys):
    folder = _events(tmp_path / "other", accuracy=[0.5])
    message = _refused(capsys, folder)
    assert f"{folder}: no scalar of a training run (lm loss" in message
    assert "hold accuracy: are they of another program?" in message


def test_a_folder_of_several_runs_is_not_taken_for_one(runs, capsys):
    message = _refused(capsys, runs)
    assert f"{runs}: events of 3 runs there, in dense/tensorboard, remoe/tensorboard" in message


def test_records_of_a_longer_training_before_in_the_folder_are_told(tmp_path, capsys):
    write_events(tmp_path / "run", "relu")  # to step 30
    for step in (31, 40):
        make_record(step, "valid").save(tmp_path / f"run/routing/valid-{step:08d}.npz")
    assert report.main([str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "valid-00000040.npz is of a later step than the last that was logged, 30" in said
    (tmp_path / "run/routing/valid-00000040.npz").unlink()
    assert report.main([str(tmp_path / "run")]) == 0
    assert "warning" not in capsys.readouterr().err, "the last evaluation may be ahead of the log"


@pytest.mark.parametrize(("asked", "said"), [(30, "30"), (31, "30 of 31"), (1000, "30 of 1,000")])
def test_a_run_that_is_not_at_its_end_says_so(tmp_path, asked, said):
    write_events(tmp_path / "run", "dense")
    with SummaryWriter(str(tmp_path / "run/tensorboard")) as writer:
        writer.add_text("train_iters", str(asked))
    assert report.main([str(tmp_path / "run")]) == 0
    page = Page((tmp_path / "run/report.html").read_text())
    assert page.rows("The run in numbers")["steps"] == [said]


def test_sparsity_without_lambda_is_shown_alone(tmp_path):
    folder = _events(tmp_path / "run", moe_relu_sparsity=[0.5, 0.75])
    assert report.main([str(folder)]) == 0
    found = Page((folder / "report.html").read_text())
    alts = [image["alt"] for image in found.images]
    assert any("Sparsity" in alt for alt in alts) and not any("Lambda" in alt for alt in alts)


@pytest.mark.filterwarnings("error:Data has no positive values")
def test_a_lambda_of_zero_is_drawn(tmp_path):
    folder = _events(tmp_path / "run", moe_relu_sparsity=[0.5], moe_relu_l1_reg_coeff=[0.0])
    assert report.main([str(folder)]) == 0


def test_a_loss_that_is_no_number_is_said(tmp_path):
    folder = _events(tmp_path / "run", lm_loss=[5.0, float("nan"), 4.0, float("inf")])
    assert report.main([str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert (
        "run: the training loss is no finite number at 2 of 4 logged steps, the first is 2." in text
    )


def test_a_damaged_record_is_named(tmp_path, capsys):
    path = tmp_path / "routing" / "train-00000010.npz"
    path.parent.mkdir()
    path.write_bytes(b"no record")
    message = _refused(capsys, tmp_path)
    assert str(path) in message and message.endswith("; move it away\n")


def test_a_tokenizer_of_fewer_tokens_than_the_text_is_refused(runs, tmp_path, capsys):
    small = write_tokenizer(tmp_path / "small", size=3)
    message = _refused(capsys, runs / "remoe", "--tokenizer", small)
    assert f"{small}: has 3 tokens" in message and "by --tokenizer" in message
