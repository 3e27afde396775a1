"""Figures, their file and their tables, on a made-up model."""

import json

import numpy as np
import pytest

from remoe.analysis.counting import record_of
from remoe.analysis.maps import RoutingMaps, pack
from routing_analysis.count_figures import figures_of_counts
from routing_analysis.map_figures import Course, figures_of_maps
from routing_analysis.quantities import QUANTITIES
from routing_analysis.results import plain, write_results
from routing_analysis.tables import tables

NAMES = ["code", "law", "prose"]
ABOUT = {"run": "a", "method": "relu", "topk": 1, "num_experts": 8, "moe_layers": [1, 3]}


def make_maps(step, flips=0.0, num_experts=8):
    """Domains with tokens and experts of their own; more flips, further from the first map."""
    generator = np.random.default_rng(0)
    domains = np.repeat(np.arange(3), 4).astype(np.int32)
    ids = (generator.zipf(1.5, (12, 16)) % 40 + 20 * domains[:, None]).astype(np.int32)
    shares = generator.random((2, 3, num_experts)) * 0.4
    routing_map = generator.random((2, 12 * 16, num_experts)) < shares[:, domains.repeat(16)]
    routing_map ^= generator.random(routing_map.shape) < flips
    losses = generator.random((12, 16)).astype(np.float32)
    losses[:, -1] = np.nan
    meta = {"format": 1, "step": step, "domain_names": NAMES, "vocab_size": 80, **ABOUT}
    meta["num_experts"] = num_experts
    return RoutingMaps(meta, ids, domains, pack(routing_map), None, losses)


@pytest.fixture(scope="module")
def results():
    maps = [make_maps(10, 0.3), make_maps(20, 0.1), make_maps(30)]
    course = Course(maps[-1])
    for one in maps:
        course.add(one)
    about = {"phase": "valid", "step": 30, "domain_names": NAMES}
    return {
        **ABOUT,
        "domain_names": NAMES,
        "calibration": {"source": "here", "num_sequences": 12, "sequence_length": 16},
        "checkpoints": [figures_of_maps(one) for one in maps],
        "flips": course.flips,
        "saturation": course.saturation,
        "records": [about | figures_of_counts(record_of(maps[-1]))],
    }


def leaves(value):
    """Names under which a number or a list of numbers stands."""
    for key, item in value.items():
        items = item if isinstance(item, list) else [item]
        inner = [one for one in items if isinstance(one, dict)]
        for one in inner:
            yield from leaves(one)
        if not inner:
            yield key


def test_every_number_has_a_unit_and_every_unit_a_number(results):
    found = set(
        leaves(plain({key: results[key] for key in ("checkpoints", "flips", "saturation")}))
    )
    assert found == set(QUANTITIES)
    assert set(leaves(plain({"records": results["records"]}))) <= found | {"phase", "domain_names"}


def test_the_file_is_plain_json_with_null_for_what_has_no_value(results, tmp_path):
    changed = results | {"saturation": [{"step": 1, "kept": np.array([np.nan, 1.0])}]}
    path = write_results(tmp_path / "new", changed)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert read["saturation"] == [{"step": 1, "kept": [None, 1.0]}]
    assert read["quantities"]["flip_rate"]["unit"] == "fraction"
    assert read["checkpoints"][0]["load_balance"]["tokens_per_expert"][0] == (
        results["checkpoints"][0]["load_balance"]["tokens_per_expert"][0].tolist()
    )
    assert [file.name for file in path.parent.iterdir()] == ["analysis.json"]


def test_the_course_compares_neighbours_and_the_last(results):
    assert [(f["from_step"], f["to_step"]) for f in results["flips"]] == [(10, 20), (20, 30)]
    first, last = (make_maps(10, 0.3).routing_map(), make_maps(30).routing_map())
    second = make_maps(20, 0.1).routing_map()
    assert results["flips"][0]["flip_rate"] == pytest.approx((first != second).mean())
    assert results["flips"][0]["flip_count"] == pytest.approx(8 * (first != second).mean())
    kept = (first & last).sum((1, 2)) / first.sum((1, 2))
    assert results["saturation"][0]["kept"] == pytest.approx(kept)
    assert results["saturation"][-1]["saturation"].tolist() == [1, 1]


def test_domains_of_their_own_tokens_and_experts_are_found_apart(results):
    figures = results["checkpoints"][-1]
    assert min(figures["specialisation"]["domain_information"]) > 0.05
    assert np.array(figures["divergence"]["unigrams"])[0, 2] > 0.5


def test_experts_that_no_group_of_ranks_divides_have_no_load_over_ranks():
    figures = figures_of_counts(record_of(make_maps(1, num_experts=6)))
    assert set(figures["load_balance"]["over_ranks"]) == {"2"}
    one = figures_of_counts(record_of(make_maps(1, num_experts=1)))
    assert one["load_balance"]["over_ranks"] == {}


def rows_of(text, title):
    """Cells of the table below a title, by the first column, each by its header."""
    lines = text[text.index(title) :].splitlines()[1:]
    lines = [line for line in lines[: lines.index("") if "" in lines else None] if "|" in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, _, *body = cells
    return {row[0]: dict(zip(header, row, strict=True)) for row in body}


def test_tables_show_the_figures(results):
    text = tables(results)
    by_step = rows_of(text, "By checkpoint")
    assert list(by_step) == ["10", "20", "30"]
    figures = results["checkpoints"][1]
    assert float(by_step["20"]["loss"]) == pytest.approx(figures["loss"], abs=5e-4)
    assert float(by_step["20"]["active"]) == pytest.approx(figures["active_experts"], abs=5e-4)
    assert by_step["10"]["flip rate"] == "-"
    assert float(by_step["20"]["flip rate"]) == pytest.approx(
        results["flips"][0]["flip_rate"], abs=5e-5
    )
    by_layer = rows_of(text, "By layer, step 30")
    assert list(by_layer) == ["1", "3"]
    variation = results["checkpoints"][-1]["load_balance"]["coefficient_of_variation"]
    assert float(by_layer["3"]["load CV"]) == pytest.approx(variation[1], abs=5e-4)
    assert list(rows_of(text, "By domain, step 30")) == NAMES
    assert rows_of(text, "Records of training")["valid"]["step"] == "30"
    assert "over 3 pairs" in text


def test_a_model_without_active_experts_has_tables_too():
    maps = make_maps(5)
    empty = RoutingMaps(
        maps.meta, maps.token_ids, maps.domains, np.zeros_like(maps.maps), None, maps.losses
    )
    course = Course(empty)
    course.add(empty)
    results = {
        **ABOUT,
        "domain_names": NAMES,
        "calibration": {"source": "here", "num_sequences": 12, "sequence_length": 16},
        "checkpoints": [figures_of_maps(empty)],
        "flips": course.flips,
        "saturation": course.saturation,
        "records": [],
    }
    row = rows_of(tables(results), "By checkpoint")["5"]
    assert (row["active"], row["no expert"], row["load CV"]) == ("0.000", "1.000", "-")
    assert "no rank correlation" in tables(results)
