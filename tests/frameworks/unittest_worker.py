# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of one module and writes what happens to each, one JSON line at a time.

Tests are those that unittest finds, and functions of the module that pytest would take.

usage: unittest_worker.py RESULTS MODULE [TEST TO LEAVE OUT]...
"""

from __future__ import annotations

import inspect
import json
import sys
import time
import unittest
import warnings
from typing import Any, Callable, Iterator, TextIO, Union


class Report(unittest.TestResult):
    """A line when a test starts, so that a crash or a hang has a name, and one for its outcome."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self.file = file
        self.outcome = "passed"
        self.text = ""
        self.began = 0.0

    def write(self, **entry: Any) -> None:
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcome, self.text, self.began = "passed", "", time.monotonic()
        self.write(start=test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        seconds = round(time.monotonic() - self.began, 2)
        self.write(test=test.id(), outcome=self.outcome, seconds=seconds, text=self.text)
        super().stopTest(test)
        self.stop_after_failure()

    def stop_after_failure(self) -> None:
        """A failed kernel breaks the context: what comes after it must have another process."""
        if self.failures or self.errors:
            self.stop()

    def note(self, outcome: str, text: str) -> None:
        if self.outcome in ("passed", "skipped"):
            self.outcome, self.text = outcome, text

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addFailure(test, err)
        self.note("failed", self.failures[-1][1])

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        if err[0].__name__ == "Skipped":  # pytest's, which unittest takes for an error
            self.addSkip(test, str(err[1]))
            return
        super().addError(test, err)
        if isinstance(test, unittest.TestCase):
            self.note("failed", self.errors[-1][1])
        else:  # setUpClass and the like: no test of its own
            self.write(test=str(test), outcome="failed", seconds=0, text=self.errors[-1][1])

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note("failed", (self.failures + self.errors)[-1][1])

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        if isinstance(test, unittest.TestCase):
            self.note("skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        super().addExpectedFailure(test, err)
        self.note("skipped", "the suite expects this failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self.note("failed", "the suite expects this to fail")


def tests_of(suite: Union[unittest.TestSuite, unittest.TestCase]) -> Iterator[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        yield suite
        return
    for inner in suite:
        yield from tests_of(inner)


class FunctionTest(unittest.FunctionTestCase):
    """With a name like that of any other test."""

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__(function)
        self.name = f"{function.__module__}.{function.__name__}"

    def id(self) -> str:
        return self.name


def functions_of(module: str) -> Iterator[unittest.TestCase]:
    """None of a module that cannot be imported: unittest has told that already."""
    for name, value in list(
        vars(sys.modules.get(module)).items() if module in sys.modules else []
    ):
        if name.startswith("test_") and inspect.isfunction(value) and value.__module__ == module:
            yield FunctionTest(value)


def main() -> None:
    results, module, *left_out = sys.argv[1:]
    warnings.simplefilter("default")
    suite = unittest.defaultTestLoader.loadTestsFromName(module)
    tests = [*tests_of(suite), *functions_of(module)]
    wanted = unittest.TestSuite(test for test in tests if test.id() not in left_out)
    with open(results, "a", encoding="utf-8") as file:
        report = Report(file)
        wanted.run(report)
        if not report.shouldStop:
            report.write(end=module)


if __name__ == "__main__":
    main()
