"""`python -m tests.fuzz.child TARGET [LIBFUZZER OPTION...]`: fuzz one target, guided by coverage.

The options: https://llvm.org/docs/LibFuzzer.html#options
"""

import sys
import warnings

import atheris

with atheris.instrument_imports(include=["streams", "cluster", "kombu", "celery.result"]):
    from tests.fuzz.targets import TARGETS, check_any

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of values that numpy casts
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, check_any if name == "any" else TARGETS[name])
    atheris.Fuzz()
