"""Which of several processes this is, in the form that Lightning asks for it."""

from lightning.pytorch.plugins.environments import ClusterEnvironment

from skyloom.trainer.distributed.ranks import LOCALHOST


class Processes(ClusterEnvironment):
    """Tells Lightning which process this is, so that it starts none and looks at no variable of a queue.

    Lightning's own such classes for Slurm and torchrun would also take over their signals, or ports that are in use.

    Parameters
    ----------
    rank
        Number of this process.
    size
        Number of processes.
    port
        Where rank 0 listens.
    address
        Of the machine of rank 0.
    local_rank
        Number of this process on its machine, and of its GPU; None: there is one machine.
    node
        Number of its machine.
    """

    creates_processes_externally = True

    def __init__(
        self,
        rank: int,
        size: int,
        port: int,
        *,
        address: str = LOCALHOST,
        local_rank: int | None = None,
        node: int = 0,
    ) -> None:
        super().__init__()
        self.rank, self.size, self._port, self._address = rank, size, port, address
        self._local_rank, self._node = rank if local_rank is None else local_rank, node

    @property
    def main_address(self) -> str:
        """Machine of rank 0."""
        return self._address

    @property
    def main_port(self) -> int:
        """Port of rank 0."""
        return self._port

    @staticmethod
    def detect() -> bool:
        """Never chosen by Lightning itself."""
        return False

    def world_size(self) -> int:
        """Processes."""
        return self.size

    def set_world_size(self, size: int) -> None:
        """It is fixed."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self.rank

    def set_global_rank(self, rank: int) -> None:
        """It is fixed."""

    def local_rank(self) -> int:
        """Number of this process on its machine, and of its GPU."""
        return self._local_rank

    def node_rank(self) -> int:
        """Number of the machine."""
        return self._node
