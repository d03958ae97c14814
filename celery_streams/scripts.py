"""Atomic queue operations in Lua: a message is in exactly one place at any time.

Each script is a file of `lua/`, which begins with what its KEYS and ARGV are and what it returns.
Lua in Redis runs as one transaction: https://redis.io/docs/latest/develop/programmability/
"""

from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

#: The first line of a script that a server out of memory runs: what was accepted goes on, and
#: frees memory as it ends. Nothing new is accepted.
FOR_ACCEPTED = "#!lua flags=allow-oom\n"
#: Bytes up to which a sender is told the result; of a larger one, its key. The scripts say it, too.
LARGE = 64 * 1024

_FOLDER = Path(__file__).with_name("lua")


def read(name: str) -> str:
    """Return the code of a Lua file, without the comment on top."""
    _, blank, code = (_FOLDER / f"{name}.lua").read_text().partition("\n\n")
    return blank[1:] + code


class Script:
    """A Lua script, sent whole once and by its digest from then on.

    It is a file of its own, after files whose functions it uses.
    """

    def __init__(self, *names: str, is_for_new: bool = False) -> None:
        code = "".join(map(read, names))
        self.source = code if is_for_new else FOR_ACCEPTED + code
        #: How Redis names it.
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: list[str], *argv: Any) -> Any:
        """Run the script and return its reply; raises redis-py's errors."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *argv)
        except NoScriptError:  # the first time, and after a restart of the server
            return client.eval(self.source, len(keys), *keys, *argv)


PUBLISH = Script("publish", is_for_new=True)
PUBLISH_ONCE = Script("publish_once", is_for_new=True)
PUBLISH_DELAYED = Script("publish_delayed", is_for_new=True)
STORE = Script("store", "store_result")
FETCH = Script("store", "fetch")
RELEASE = Script("take", "release")
RELEASE_ALL = Script("take", "release_all")
DELAY = Script("take", "delay")
DEAD_LETTER = Script("take", "dead_letter")
REPLAY = Script("replay")
PROMOTE = Script("promote")
RECLAIM = Script("take", "reclaim")
REVOKE = Script("revoke")
EXPIRE = Script("expire")
LENGTHS = Script("lengths")
PURGE = Script("purge")
