"""One function per command of ``skyloom``; each prints its answer and returns the exit code."""

from argparse import Namespace
from typing import Any

from skyloom.cli import output
from skyloom.cli.graph import Graph, removable, up
from skyloom.cli.output import line, say, sections, size_text, table, tree
from skyloom.cli.query import Facts, differing, read_terms, select
from skyloom.errors import ConfigError, StoreError, unknown_choice
from skyloom.progress import track
from skyloom.report.lineage import flatten, inputs_of
from skyloom.store import Artifact, Store
from skyloom.store.flat import counts_text

WIDEST = 12  # columns of a table that still fit on a wide terminal


def ls(options: Namespace) -> int:
    """List the artifacts of a store: kind, id, names, step, time, size, counts."""
    store = _store(options)
    everything = _readable(store)
    found = [artifact for artifact in everything if options.kind in (None, artifact.kind)]
    found.sort(key=lambda artifact: (artifact.kind, artifact.history.get("finished", ""), artifact.id))
    names = _names(store)
    if options.json:
        return _dump(found, names)
    rows = [
        (a.kind, a.id, names(a), a.step, a.history.get("finished", ""), size_text(_size(a)), counts_text(a.counts))
        for a in found
    ]
    if not rows:
        _nothing(store, everything, options.kind)
        return 0
    table(("kind", "id", "name", "made by", "finished", "size", "counts"), rows)
    return 0


def show(options: Namespace) -> int:
    """Tell all that the manifest of one artifact says."""
    store = _store(options)
    artifact = store.open(options.ref)
    manifest = artifact.manifest
    if options.json:
        output.dump({**_record(artifact, _names(store)), **manifest, "history": artifact.history})
        return 0
    general = {
        "kind": artifact.kind,
        "id": artifact.id,
        "name": _names(store)(artifact),
        "path": artifact.path,
        "made by": f"{artifact.step}, version {manifest['version']}",
        "finished": artifact.history.get("finished", ""),
        "seconds": artifact.history.get("seconds", ""),
        "size": size_text(_size(artifact)),
    }
    parts = [
        ("artifact", [(key, str(value)) for key, value in general.items()]),
        ("parameters", list(flatten(artifact.parameters))),
        ("inputs", [(kind, f"{id} {counts}".strip()) for kind, id, counts in inputs_of(artifact)]),
        ("counts", list(flatten({k: v for k, v in artifact.counts.items() if v != {}}))),
        ("notes", list(flatten(artifact.notes))),
        ("files", [(name, size_text(entry["size"])) for name, entry in manifest["files"].items()]),
        ("code", list(flatten({**manifest["code"], **manifest["packages"]}))),
    ]
    sections(parts)
    return 0


def find(options: Namespace) -> int:
    """Print the ids of the artifacts that fit, one per line; exit code 1 when none does."""
    store = _store(options)
    words = [word for word in options.terms if not set(word) & set("=<>")]
    if len(words) > 1:
        raise ConfigError(f"expected at most one kind and then key=value, found {' '.join(words)}")
    kind = words[0] if words else None
    terms = read_terms([word for word in options.terms if word not in words], store)
    everything = _readable(store)
    graph = Graph(everything)
    candidates = [artifact for artifact in everything if kind in (None, artifact.kind)]
    if options.made_from:
        ids = {artifact.id for artifact in graph.descendants(store.open(options.made_from).id)}
        candidates = [artifact for artifact in candidates if artifact.id in ids]
    found = select(candidates, terms, graph) if candidates else []
    names = _names(store)
    if options.json:
        _dump([artifact for artifact, _ in found], names)
    if not found:
        return _nothing(store, everything, kind)
    if options.json:
        return 0
    _print_found(found, names, kind, wide=options.wide)
    return 0


def _print_found(found: list[tuple[Artifact, Facts]], names: Any, kind: str | None, *, wide: bool) -> None:
    """Ids alone in a pipe, with all parameters behind them when wide; a table of what differs on a terminal."""
    if not output.is_terminal():
        for artifact, facts in found:
            values = [f"{key}={','.join(texts)}" for key, texts in facts.values.items()] if wide else []
            line((artifact.id, *values))
        return
    every = list(dict.fromkeys(key for _, facts in found for key in facts.values))
    differ = differing([facts for _, facts in found]) if kind else []  # of different kinds, everything differs
    kinds = {artifact.kind for artifact, _ in found}
    first = found[0][1]
    inputs = [k for k in every if k in first.ids and k not in differ and "." not in k and first.values[k] != ["null"]]
    columns = every if wide else [*(inputs if kind else []), *differ]
    heads = ["kind", "id", "name", "finished", *columns]
    rows = [
        (a.kind, a.id, names(a), a.history.get("finished", ""), *(",".join(f.values.get(key, [])) for key in columns))
        for a, f in found
    ]
    if wide or len(heads) > WIDEST:  # one artifact below the other: a person reads down, not across
        for row in rows:
            sections([(f"{row[0]} {row[1]}", [(h, str(v)) for h, v in zip(heads[2:], row[2:], strict=True) if v])])
        return
    drop = 1 if len(kinds) == 1 and kind else 0
    table(heads[drop:], [row[drop:] for row in rows])


def lineage(options: Namespace) -> int:
    """Show what an artifact was made from, or what was made from it."""
    store = _store(options)
    artifact = store.open(options.ref)
    label = _names(store)
    tree(Graph(_readable(store)).down(artifact, label) if options.down else up(artifact, label))
    return 0


def verify(options: Namespace) -> int:
    """Check artifacts against their manifests; exit code 1 when there are problems."""
    store = _store(options)
    chosen = [store.open(ref).path for ref in options.refs] or list(store.folders())
    problems = 0
    for folder in track(chosen, "verify", unit="artifacts"):
        try:
            artifact = Artifact(folder)
            found = artifact.verify()
            if artifact.id != folder.name:
                found.append(f"{folder} holds the artifact {artifact.id}; it was copied or renamed by hand")
        except StoreError as error:
            found = [str(error)]
        for problem in found:
            line((problem,))
        problems += len(found)
    say(f"{len(chosen)} artifacts checked, {problems or 'no'} problem{'' if problems == 1 else 's'}")
    return 1 if problems else 0


def gc(options: Namespace) -> int:
    """List, and with --yes delete, what interrupted builds have left, and the artifacts named with --remove."""
    store = _store(options)
    removed = removable(store, [store.open(ref) for ref in options.remove])
    left = store.sweep() if options.yes else store.leftovers()
    rows = [("partial", *path.name.rpartition("-")[::2], path) for path in left]
    rows += [("finished", artifact.kind, artifact.id, artifact.path) for artifact in removed]
    if options.yes:
        for artifact in removed:
            store.remove(artifact)
    if rows:
        table(("state", "kind", "id", "path"), rows)
    if not rows:
        say(f"nothing to delete in {store.root}")
    elif options.yes:
        say(f"deleted: {len(rows)}")
    else:
        lost = "; an interrupted build would then start anew" if left else ""
        say(f"{len(rows)} could be deleted, --yes does it{lost}")
    return 0


def name(options: Namespace) -> int:
    """Give a name to an artifact, or free one."""
    store = _store(options)
    if options.remove:
        if options.ref:
            raise ConfigError(f"--remove takes the name alone, found also {options.ref}")
        store.names.remove(options.name)
        return 0
    if not options.ref:
        raise ConfigError(f"give the artifact that is to be called {options.name}: skyloom name {options.name} REF")
    artifact = store.open(options.ref)
    if artifact.path != store.path(artifact.kind, artifact.id):
        raise StoreError(f"{artifact.path} does not lie in the store {store.root}")
    store.names.give(options.name, f"{artifact.kind}/{artifact.id}")
    return 0


def _store(options: Namespace) -> Store:
    store = Store(options.store)
    if not store.root.is_dir():
        raise StoreError(f"there is no store in {store.root}; name its folder with --store or SKYLOOM_STORE")
    return store


def _record(artifact: Artifact, names: Any) -> dict[str, Any]:
    """An artifact as ``--json`` prints it; sizes in bytes, times in UTC."""
    return {
        "kind": artifact.kind,
        "id": artifact.id,
        "names": names(artifact).split(", ") if names(artifact) else [],
        "path": str(artifact.path),
        "step": artifact.step,
        "finished": artifact.history.get("finished"),
        "size": _size(artifact),
        "counts": artifact.counts,
    }


def _dump(found: list[Artifact], names: Any) -> int:
    output.dump([_record(artifact, names) for artifact in found])
    return 0


def _names(store: Store) -> Any:
    """Read all names; the function that comes back tells those of an artifact."""
    names: dict[str, list[str]] = {}
    for given, target in store.names.all().items():
        names.setdefault(target, []).append(given)
    return lambda artifact: ", ".join(names.get(f"{artifact.kind}/{artifact.id}", []))


def _size(artifact: Artifact) -> int:
    return sum(entry["size"] for entry in artifact.manifest["files"].values())


def _readable(store: Store) -> list[Artifact]:
    """All artifacts but those whose manifest cannot be read, which are named on stderr."""
    return store.readable(lambda error: say(f"left out: {error}"))


def _nothing(store: Store, everything: list[Artifact], kind: str | None) -> int:
    kinds = sorted({artifact.kind for artifact in everything})
    if kind and kinds and kind not in kinds:
        raise unknown_choice("kind", kind, kinds)
    say(f"nothing found in {store.root}" if kinds else f"the store {store.root} is empty")
    return 1
