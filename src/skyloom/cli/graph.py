"""Which artifact of a store was made from which, read from the manifests alone, so that gaps do no harm."""

from collections.abc import Callable, Iterable

from skyloom.cli.output import Node
from skyloom.errors import StoreError
from skyloom.report.lineage import inputs_of
from skyloom.store import Artifact, Store

AGAIN = "(see above)"


class Graph:
    """Artifacts of a store and the arrows between them.

    Parameters
    ----------
    artifacts
        A whole store, or those of its artifacts that can be read.

    Attributes
    ----------
    artifacts : dict
        Artifact by id.
    children : dict
        By id, the ids of what was made directly from it.
    """

    def __init__(self, artifacts: Iterable[Artifact]) -> None:
        self.artifacts = {artifact.id: artifact for artifact in artifacts}
        self.children: dict[str, list[str]] = {}
        for artifact in self.artifacts.values():
            for kind, id, _ in inputs_of(artifact):
                if kind != "files" and artifact.id not in self.children.setdefault(id, []):
                    self.children[id].append(artifact.id)

    def descendants(self, id: str) -> list[Artifact]:
        """Everything made from an artifact, directly or not, nearest first."""
        seen: dict[str, None] = {}
        queue = list(self.children.get(id, ()))
        while queue:
            head = queue.pop(0)
            if head not in seen:
                seen[head] = None
                queue.extend(self.children.get(head, ()))
        return [self.artifacts[id] for id in seen]

    def ancestors(self, artifact: Artifact) -> list[Artifact]:
        """Everything that an artifact was made from and that is here, nearest first."""
        seen: dict[str, Artifact] = {}
        queue = [artifact]
        while queue:
            for _, id, _ in inputs_of(queue.pop(0)):
                if id in self.artifacts and id not in seen:
                    seen[id] = self.artifacts[id]
                    queue.append(seen[id])
        return list(seen.values())

    def down(self, artifact: Artifact, label: Callable[[Artifact], str]) -> Node:
        """Tree of what was made from an artifact."""
        return self._grow(artifact, label, set())

    def _grow(self, artifact: Artifact, label: Callable[[Artifact], str], seen: set[str]) -> Node:
        node = Node((artifact.kind, artifact.id, artifact.step, label(artifact)))
        if artifact.id in seen and artifact.id in self.children:
            return Node((*node.columns, AGAIN))
        if artifact.id not in seen:
            seen.add(artifact.id)
            node.children = [self._grow(self.artifacts[id], label, seen) for id in self.children.get(artifact.id, ())]
        return node


def up(artifact: Artifact, label: Callable[[Artifact], str], seen: set[str] | None = None) -> Node:
    """Tree of what an artifact was made from; what is met again is not unfolded again."""
    seen = set() if seen is None else seen
    node = Node((artifact.kind, artifact.id, artifact.step, label(artifact)))
    if artifact.id in seen:
        return Node((*node.columns, AGAIN)) if artifact.manifest["inputs"] else node
    seen.add(artifact.id)
    for kind, id, counts in inputs_of(artifact):
        if kind == "files":
            node.children.append(Node((kind, id, "", counts)))
            continue
        try:
            node.children.append(up(Artifact(artifact.path.parents[1] / kind / id), label, seen))
        except StoreError:
            node.children.append(Node((kind, id, "", "no longer in the store")))
    return node


def removable(store: Store, artifacts: list[Artifact]) -> list[Artifact]:
    """The artifacts in an order in which none is deleted before what was made from it.

    Raises
    ------
    StoreError
        One lies in another store, or something made from it would be kept.
    """
    if not artifacts:
        return []
    graph = Graph(store)
    chosen = {artifact.id: artifact for artifact in artifacts}
    below = {}
    for artifact in chosen.values():
        if artifact.path != store.path(artifact.kind, artifact.id):
            raise StoreError(f"{artifact.path} does not lie in the store {store.root}")
        below[artifact.id] = graph.descendants(artifact.id)
        kept = [f"{other.kind} {other.id}" for other in below[artifact.id] if other.id not in chosen]
        if kept:
            more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
            raise StoreError(
                f"{artifact.kind} {artifact.id} cannot be removed: {', '.join(kept[:3])}{more} "
                f"{'was' if len(kept) == 1 else 'were'} made from it; remove these as well by naming them, or keep it"
            )
    return sorted(chosen.values(), key=lambda artifact: len(below[artifact.id]))
