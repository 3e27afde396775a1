"""What the report refuses or warns of: damaged, foreign, unfinished and misnamed things, in one line."""

import pytest
from report_pages import Page
from torch.utils.tensorboard import SummaryWriter

import report
from report_runs import make_record, write_events, write_run, write_tokenizer
from reporting import page, parts


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
