# Types of the calls of tasks, from their contracts. Made by `make contracts`.
from collections.abc import Callable, Sequence
from typing import Any

import numpy

class _Add:
    def add(
        self,
        x: complex,
        y: complex,
        *,
        timeout: float = ...,
    ) -> Any: ...
    def tsum(
        self,
        numbers: Sequence[complex],
        *,
        timeout: float = ...,
    ) -> Any: ...
    def longtime_add(
        self,
        x: complex,
        y: complex,
        seconds: float = ...,
        *,
        timeout: float = ...,
    ) -> Any: ...
    def unsteady_add(
        self,
        x: complex,
        y: complex,
        failures: int = ...,
        *,
        timeout: float = ...,
    ) -> Any: ...
    def error_of(
        self,
        job_id: str,
        *,
        timeout: float = ...,
    ) -> str: ...

class _Factorial:
    def factorial(
        self,
        n: int,
        *,
        timeout: float = ...,
    ) -> int: ...

class _MatMul:
    def mat_mul(
        self,
        m: int,
        n: int,
        seed: int | None = ...,
        *,
        timeout: float = ...,
    ) -> numpy.ndarray[Any, Any]: ...
    def tile(
        self,
        m: int,
        n: int,
        seed: int,
        rows: Sequence[int],
        columns: Sequence[int],
        *,
        timeout: float = ...,
    ) -> numpy.ndarray[Any, Any]: ...
    def multiply(
        self,
        a: Any,
        b: Any,
        *,
        timeout: float = ...,
    ) -> Any: ...

class Tasks:
    add: _Add
    factorial: _Factorial
    mat_mul: _MatMul
    def __init__(self, call: Callable[..., Any]) -> None: ...
