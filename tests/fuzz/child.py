"""`python -m tests.fuzz.child TARGET [LIBFUZZER OPTION...]`: fuzz one target, guided by coverage.

The options: https://llvm.org/docs/LibFuzzer.html#options
"""

import random
import sys
import warnings

import atheris

from tests.fuzz.mutate import mutate

with atheris.instrument_imports(include=["celery_streams", "cluster", "kombu", "celery.result"]):
    from tests.fuzz.targets import TARGETS, check_any

#: Of how many changes one is of JSON.
JSON_EACH = 2


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    chance = random.Random(seed)  # noqa: S311 - the fuzzer's own
    if chance.randrange(JSON_EACH) == 0:
        changed = mutate(data, chance)
        if changed is not None and len(changed) <= most:
            return changed
    mutated: bytes = atheris.Mutate(data, most)
    return mutated


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of values that numpy casts
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, check_any if name == "any" else TARGETS[name], custom_mutator=_mutate)
    atheris.Fuzz()
