"""One function per command of ``skyloom``; each prints its answer and returns the exit code."""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from skyloom.cli.graph import Graph, folders, removable, up
from skyloom.cli.output import line, say, sections, size_text, table, tree
from skyloom.errors import ConfigError, StoreError, unknown_choice
from skyloom.progress import track
from skyloom.report.lineage import counts_text, flatten, inputs_of
from skyloom.store import Artifact, Store


def ls(options: Namespace) -> int:
    """List the artifacts of a store: kind, id, names, step, time, size, counts."""
    store = _store(options)
    found = [artifact for artifact in store if options.kind in (None, artifact.kind)]
    found.sort(key=lambda artifact: (artifact.kind, artifact.history.get("finished", ""), artifact.id))
    names = _names(store)
    rows = [
        (a.kind, a.id, names(a), a.step, a.history.get("finished", ""), size_text(_size(a)), counts_text(a.counts))
        for a in found
    ]
    if not rows:
        _nothing(store, options.kind)
        return 0
    table(("kind", "id", "name", "made by", "finished", "size", "counts"), rows)
    return 0


def show(options: Namespace) -> int:
    """Tell all that the manifest of one artifact says."""
    store = _store(options)
    artifact = store.open(options.ref)
    manifest = artifact.manifest
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
    kinds = [term for term in options.terms if "=" not in term]
    if len(kinds) > 1:
        raise ConfigError(f"expected at most one kind and then key=value, found {' '.join(kinds)}")
    kind = kinds[0] if kinds else None
    where = dict(term.split("=", 1) for term in options.terms if "=" in term)
    candidates = store.find(kind)
    if options.made_from:
        ids = {artifact.id for artifact in Graph(store).descendants(store.open(options.made_from).id)}
        candidates = [artifact for artifact in candidates if artifact.id in ids]
    if not candidates:
        return _nothing(store, kind)
    known = {"step"} | {key for artifact in candidates for key in _keys(artifact)}
    for key in where:
        if key not in known:
            raise unknown_choice("key", key, known)
    wanted = {artifact.id for artifact in candidates}
    found = [artifact for artifact in store.find(kind, where) if artifact.id in wanted]
    for artifact in found:
        line((artifact.id,))
    return 0 if found else _nothing(store, kind)


def lineage(options: Namespace) -> int:
    """Show what an artifact was made from, or what was made from it."""
    store = _store(options)
    artifact = store.open(options.ref)
    label = _names(store)
    tree(Graph(store).down(artifact, label) if options.down else up(artifact, label))
    return 0


def verify(options: Namespace) -> int:
    """Check artifacts against their manifests; exit code 1 when there are problems."""
    store = _store(options)
    chosen = [store.open(ref).path for ref in options.refs] or list(folders(store))
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


def _names(store: Store) -> Any:
    """Read all names; the function that comes back tells those of an artifact."""
    names: dict[str, list[str]] = {}
    for given, target in store.names.all().items():
        names.setdefault(target, []).append(given)
    return lambda artifact: ", ".join(names.get(f"{artifact.kind}/{artifact.id}", []))


def _size(artifact: Artifact) -> int:
    return sum(entry["size"] for entry in artifact.manifest["files"].values())


def _nothing(store: Store, kind: str | None) -> int:
    kinds = sorted({artifact.kind for artifact in store})
    if kind and kinds and kind not in kinds:
        raise unknown_choice("kind", kind, kinds)
    say(f"nothing found in {store.root}" if kinds else f"the store {store.root} is empty")
    return 1


def _keys(artifact: Artifact) -> Iterator[str]:
    """Dotted names by which an artifact can be found."""
    queue = [("", artifact.manifest["parameters"]), ("", artifact.manifest["inputs"])]
    while queue:
        prefix, node = queue.pop()
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                queue.append((f"{prefix}{key}.", value))
