"""The console command ``skyloom``: looks artifacts up, checks them, names them and cleans up."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import skyloom
from skyloom.errors import SkyloomError

EXIT_FOUND_NOTHING = 1  # also: verify found problems
EXIT_USER_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the scripts do."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USER_ERROR, f"error: {message}; '{self.prog} --help' tells more\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 1 nothing found or problems found, 2 a user's mistake."""
    options = _parse(arguments)
    from skyloom.cli import commands  # late: --help must not wait for it

    try:
        code: int = getattr(commands, options.command)(options)
        sys.stdout.flush()
        return code
    except SkyloomError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # the reader of a pipe has seen enough (skyloom ls | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse; argparse alone refuses words of ``find`` behind an option, as in: find KIND --from REF key=value."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command == "find":
        options.terms += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="skyloom",
        description="Look up artifacts. REF is an id, the beginning of one, a name or the path of an artifact. "
        "On a terminal the answers are tables; in a pipe they are lines with tabs between the columns.",
    )
    parser.add_argument("--version", action="version", version=f"skyloom {skyloom.__version__}")
    parser.add_argument("--store", help="folder of the artifacts; else $SKYLOOM_STORE, else ./store")
    anywhere = _Parser(add_help=False)  # lets --store stand behind the command, too
    anywhere.add_argument("--store", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", parents=[anywhere])

    def json_of(one: argparse.ArgumentParser, what: str) -> None:
        one.add_argument("--json", action="store_true", help=f"print {what} as JSON, for programs")

    one = command("ls", "list the finished artifacts, oldest first within a kind")
    one.add_argument("kind", nargs="?", help="only this kind (cutouts, features, …)")
    json_of(one, "a list of artifacts")
    one = command("show", "tell all about one artifact")
    one.add_argument("ref", metavar="REF")
    json_of(one, "the manifest, and where and when it was made")
    one = command(
        "find", "find artifacts by their parameters and by what they were made from; in a pipe the ids, one per line"
    )
    one.add_argument(
        "terms", nargs="*", metavar="[KIND] key=value",
        help="dotted names of parameters and inputs, or step; behind a kind those of ancestors (cutouts.window_px=8); "
        "* and ? stand for any letters; also !=, >, >=, < and <=, in quotes",
    )  # fmt: skip
    one.add_argument("--from", dest="made_from", metavar="REF", help="only what was made from this, directly or not")
    one.add_argument("--wide", action="store_true", help="show all parameters, not only those that differ")
    json_of(one, "a list of artifacts")
    one = command("lineage", "show what an artifact was made from, as a tree")
    one.add_argument("ref", metavar="REF")
    one.add_argument("--down", action="store_true", help="show what was made from it instead")
    one = command("verify", "check all files against the checksums of the manifests; exit code 1 when some differ")
    one.add_argument("refs", nargs="*", metavar="REF", help="all artifacts when none is given")
    one = command("gc", "list what interrupted builds have left behind; delete it with --yes")
    one.add_argument("--yes", action="store_true", help="delete what is listed")
    one.add_argument(
        "--remove", nargs="+", default=[], metavar="REF",
        help="finished artifacts to delete as well; refused while others made from them are kept",
    )  # fmt: skip
    one = command("name", "give a name to an artifact, or free one")
    one.add_argument("name", metavar="NAME")
    one.add_argument("ref", nargs="?", metavar="REF")
    one.add_argument("--remove", action="store_true", help="free the name; the artifact stays")
    return parser
