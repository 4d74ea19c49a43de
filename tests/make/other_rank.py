"""What another process of a meeting may do, in a module that it can import."""

from skyloom.errors import InputError


def say(path, rank):
    with path.open("a") as file:
        file.write(f"rank {rank.rank}\n")


def refuse(what, rank):
    raise InputError(f"{what} is bad")
