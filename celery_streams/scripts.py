"""Atomic queue operations in Lua: a message is in exactly one place at any time.

Each script is a file in `lua/`, whose first comment documents its KEYS, ARGV and reply. Redis runs
a script as one transaction: https://redis.io/docs/latest/develop/programmability/
"""

from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.exceptions import NoScriptError

#: First line of scripts that run even if the server is out of memory: those for accepted jobs,
#: which free memory as they end. Scripts that accept new jobs do not have it.
ALLOW_OOM = "#!lua flags=allow-oom\n"
#: Size limit, in bytes, of a result in a notice; a notice of a larger one holds only its key. The
#: Lua files repeat the number.
MAX_NOTICE_BYTES = 64 * 1024

_FOLDER = Path(__file__).with_name("lua")


def read(name: str) -> str:
    """Return the code of a Lua file without its first comment."""
    _, blank, code = (_FOLDER / f"{name}.lua").read_text().partition("\n\n")
    return blank[1:] + code


class Script:
    """A Lua script, made of the files `names`: it is run by its digest once Redis has its source.

    The last file is the script itself; the others define functions that it uses.
    """

    def __init__(self, *names: str, is_for_new: bool = False) -> None:
        code = "".join(map(read, names))
        self.source = code if is_for_new else ALLOW_OOM + code
        #: Redis' name of the script.
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Any, keys: list[str], *argv: Any) -> Any:
        """Run the script and return its reply; raises redis-py's errors."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *argv)
        except NoScriptError:  # on first use, and after a restart of the server
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
