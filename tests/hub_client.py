"""Runs pieces of code, each in a process of its own, without importing torch for each.

The Hub's client reads its environment when it is imported. So this process imports everything but
the client, then forks for every piece of code that it reads from its standard input.
"""

import contextlib
import json
import logging
import os
import sys
import traceback
from pathlib import Path

import unlearnable as ue
from unlearnable.cli import main as cli

EVERYTHING = [getattr(ue, name) for name in ue.__all__]  # imported by now


def attempt(function, *args, **kwargs):
    """What a call gives, or how it fails."""
    try:
        return {"gave": function(*args, **kwargs)}
    except Exception as error:
        told = {"error": type(error).__name__, "message": str(error)}
        return told | {"cause": error.__cause__ and type(error.__cause__).__name__}


def run(asked):
    """In the forked process."""
    os.environ.update(asked["env"])
    os.chdir(asked["folder"])
    logging.basicConfig(level=logging.DEBUG)
    told = {}
    try:
        exec(asked["code"], {"ue": ue, "cli": cli, "attempt": attempt, "told": told})
    except BaseException:
        traceback.print_exc()
        told = None
    Path("told.json").write_text(json.dumps(told, default=str))


def main():
    assert "huggingface_hub" not in sys.modules
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            out = os.open(Path(asked["folder"]) / "output.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 1)
            os.dup2(out, 2)
            with contextlib.suppress(BaseException):
                run(asked)
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)
        os.waitpid(child, 0)
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
