"""The figures of a run as tables for a terminal."""

import numpy as np

from evaluation.table import markdown


def tables(results: dict) -> str:
    """What a person reads first: by checkpoint, by layer and by domain of the last one, records."""
    head = (
        f"{results['run']}: {results['method']}, {results['num_experts']} experts, "
        f"k = {results['topk']}, {len(results['moe_layers'])} layers with experts"
    )
    parts = [head]
    if results["checkpoints"]:
        text = results["calibration"]
        parts.append(
            f"{text['num_sequences']} sequences of {text['sequence_length']} tokens, "
            f"{len(results['domain_names'])} domains, from {text['source']}"
        )
        last = results["checkpoints"][-1]
        parts += ["\nBy checkpoint (means over layers)", _by_checkpoint(results)]
        parts += [f"\nBy layer, step {last['step']}", _by_layer(results, last)]
        parts += [f"\nBy domain, step {last['step']}", _by_domain(results, last), _verdict(last)]
    if results["records"]:
        parts += ["\nRecords of training and evaluation", _by_record(results["records"])]
    return "\n".join(parts) + "\n"


def _number(value: object, digits: int = 3) -> str:
    value = np.nan if value is None else float(value)
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _mean(values: object, digits: int = 3) -> str:
    values = np.asarray(values, np.float64)
    return "-" if np.isnan(values).all() else _number(np.nanmean(values), digits)


def _interval(found: dict) -> str:
    return f"{_number(found['value'], 2)} [{_number(found['low'], 2)}, {_number(found['high'], 2)}]"


def _columns_of_counts(figures: dict) -> dict[str, str]:
    balance = figures["load_balance"]
    ranks = {
        f"EP {num} max/mean": _mean(found["max_over_mean"], 2)
        for num, found in balance["over_ranks"].items()
    }
    return {
        "active": _number(figures["active_experts"]),
        "sparsity": _number(figures["sparsity"], 4),
        "no expert": _mean(figures["tokens_without_expert_by_layer"]),
        "load CV": _mean(balance["coefficient_of_variation"]),
        "max/mean": _mean(balance["max_over_mean"], 2),
        **ranks,
    }


def _by_checkpoint(results: dict) -> str:
    flips = {pair["to_step"]: pair for pair in results["flips"]}
    rows = []
    for figures, course in zip(results["checkpoints"], results["saturation"], strict=True):
        flip = flips.get(figures["step"], {"flip_rate": None, "flip_count": None})
        sparse = {
            f"chunks of {size}": _mean(found["chunk_sparsity"])
            for size, found in figures["chunks"].items()
        }
        rows.append(
            {
                "step": str(figures["step"]),
                "loss": _number(figures.get("loss")),
                **_columns_of_counts(figures),
                "rho of frequency and experts": _interval(
                    figures["token_frequency"]["correlation"]
                ),
                **sparse,
                "flip rate": _number(flip["flip_rate"], 4),
                "flip count": _number(flip["flip_count"]),
                "saturation": _mean(course["saturation"]),
                "kept": _mean(course["kept"]),
            }
        )
    return _table(rows)


def _by_layer(results: dict, figures: dict) -> str:
    balance, special = figures["load_balance"], figures["specialisation"]
    rows = []
    for i, layer in enumerate(results["moe_layers"]):
        rows.append(
            {
                "layer": str(layer),
                "active": _number(figures["active_experts_by_layer"][i]),
                "no expert": _number(figures["tokens_without_expert_by_layer"][i]),
                "load CV": _number(balance["coefficient_of_variation"][i]),
                "max/mean": _number(balance["max_over_mean"][i], 2),
                "below 1/64": _number(balance["fraction_below"][i]),
                "dead": str(balance["dead_experts"][i]),
                "domain says, bits": _number(special["domain_information"][i], 4),
                "token says, bits": _number(special["token_information"][i]),
                "rho of frequency and experts": _interval(
                    figures["token_frequency"]["correlation_by_layer"][i]
                ),
                "rho of domains": _number(
                    figures["divergence"]["correlation_by_layer"][i]["value"], 2
                ),
            }
        )
    return _table(rows)


def _by_domain(results: dict, figures: dict) -> str:
    rows = []
    for d, name in enumerate(results["domain_names"]):
        rows.append(
            {
                "domain": name,
                "loss": _number(figures["loss_by_domain"][d] if "loss" in figures else None),
                "active": _mean(figures["active_experts_by_domain"][d]),
                "loads against uniform, bits": _mean(
                    figures["specialisation"]["domain_divergence"][d], 4
                ),
                "tokens against the others, bits": _to_others(figures["divergence"]["unigrams"], d),
                "loads against the others, bits": _to_others(
                    np.mean(figures["divergence"]["expert_loads"], axis=0), d, 4
                ),
            }
        )
    return _table(rows)


def _to_others(distances: np.ndarray, index: int, digits: int = 3) -> str:
    others = np.delete(np.asarray(distances)[index], index)
    return _mean(others, digits) if others.size else "-"


def _verdict(figures: dict) -> str:
    found = figures["divergence"]["correlation"]
    if np.isnan(found["value"]):
        return "domains: fewer than three, or all alike: no rank correlation"
    return (
        "domains whose tokens differ use different experts: rank correlation "
        f"{found['value']:.2f} over {found['num_pairs']} pairs, p = {found['p_value']:.2g} (Mantel)"
    )


def _by_record(records: list[dict]) -> str:
    return _table(
        [
            {
                "phase": record["phase"],
                "step": str(record["step"]),
                "tokens": str(record["num_tokens"]),
                **_columns_of_counts(record),
            }
            for record in records
        ]
    )


def _table(rows: list[dict[str, str]]) -> str:
    return markdown([list(rows[0]), *(list(row.values()) for row in rows)])
