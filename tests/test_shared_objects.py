"""Objects that cannot be copied, so that the copy of a module shares them, are as before after a trace."""

import ctypes
import hashlib
import hmac
import io
import mmap
import multiprocessing
import sqlite3
import threading
import weakref

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.trace import ForwardError
from tests.test_isolation import short_measurements, ways  # noqa: F401


class Counts:
    def __init__(self):
        self.steps, self.seen = 0, []

    def step(self):
        self.steps += 1
        self.seen.append(self.steps)

    def state(self):
        return self.steps, [*self.seen]


class RefusesCopy(Counts):
    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


class RefusesPickle(Counts):
    def __reduce_ex__(self, protocol):
        raise TypeError("one of a kind")


class IsItsCopy(Counts):
    def __deepcopy__(self, memo):
        return self


class Releases(Counts):
    def __del__(self):
        """Release what it has."""


COUNTED = Counts()


def database():
    connection = sqlite3.connect(":memory:")
    connection.execute("create table steps (number)")
    connection.execute("insert into steps values (1)")
    connection.row_factory = lambda cursor, row: {"number": row[0]}
    connection.commit()
    return connection


def insert(connection):
    connection.execute("insert into steps values (2)")
    connection.commit()
    connection.execute("create table if not exists more (number)")
    connection.execute("insert into more values (2)")


def rows(connection):
    names = [row["number"] for row in connection.execute("select name from sqlite_master")]
    return {name: [row["number"] for row in connection.execute(f"select number from {name}")] for name in names}


def file_in_memory():
    memory = mmap.mmap(-1, 8)
    memory.write(b"ab")
    return memory


def write_memory(memory):
    memory.seek(0)
    memory.write(b"c")


def lines():
    return io.BufferedReader(io.BytesIO(b"first\nsecond\n" * 9))


OBJECTS = {
    "refuses copy": (RefusesCopy, Counts.step, Counts.state),
    "refuses pickle": (RefusesPickle, Counts.step, Counts.state),
    "is its copy": (IsItsCopy, Counts.step, Counts.state),
    "releases": (Releases, Counts.step, Counts.state),
    "reference": (lambda: weakref.ref(COUNTED), lambda reference: reference().step(), lambda _: COUNTED.state()),
    "memory view": (lambda: memoryview(bytearray(4)), lambda view: view.__setitem__(0, 1), bytes),
    "shared number": (
        lambda: multiprocessing.Value("i", 1),
        lambda number: setattr(number, "value", number.value + 1),
        lambda number: number.value,
    ),
    "file in memory": (file_in_memory, write_memory, lambda memory: (memory[:], memory.tell())),
    "reader": (lines, io.BufferedReader.readline, io.BufferedReader.tell),
    "text": (lambda: io.TextIOWrapper(lines()), io.TextIOWrapper.readline, io.TextIOWrapper.tell),
    "of a thread": (threading.local, lambda local: setattr(local, "step", 1), lambda local: {**vars(local)}),
    "lock": (threading.RLock, lambda lock: lock.acquire(), lambda lock: lock._is_owned()),
    "hash": (lambda: hashlib.sha256(b"a"), lambda made: made.update(b"b"), lambda made: made.hexdigest()),
    "keyed hash": (lambda: hmac.new(b"k", b"a", "md5"), lambda made: made.update(b"b"), lambda made: made.hexdigest()),
    "database": (database, insert, rows),
    "cursor": (
        lambda: database().cursor(),
        lambda cursor: insert(cursor.connection),
        lambda cursor: rows(cursor.connection),
    ),
}
"""Objects: a function that makes one, one that changes it, and one that returns its state."""


class Changes(nn.Linear):
    """A layer that changes an object which it has or gets, and then may fail."""

    def __init__(self, change, held=None, fails=False):
        super().__init__(4, 4)
        self.change, self.held, self.fails = change, held, fails

    def forward(self, x, given=None):
        self.change(self.held if given is None else given)
        if self.fails:
            raise ValueError("in the end")
        return super().forward(x)


@ways
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_copies_share_is_as_before(name, settings):
    create, change, look = OBJECTS[name]
    held, given, x = create(), create(), torch.randn(2, 4)
    before = look(held), look(given)
    assert attnscope.trace(Changes(change, held), x, **settings).totals.macs == 32
    assert attnscope.trace(Changes(change), x, given, **settings).totals.macs == 32
    with pytest.raises(ForwardError, match="in the end"):
        attnscope.trace(Changes(change, held, fails=True), x, **settings)
    assert (look(held), look(given)) == before
    change(held)
    assert look(held) != before[0]


@ways
def test_a_database_that_a_forward_closes_or_that_has_a_transaction_is_traced(settings):
    closed, busy = database(), database()
    busy.execute("insert into steps values (2)")
    assert attnscope.trace(Changes(lambda _: None, busy), torch.randn(2, 4), **settings).totals.macs == 32
    assert attnscope.trace(Changes(sqlite3.Connection.close, closed), torch.randn(2, 4), **settings).totals.macs == 32
    assert busy.in_transaction


@ways
def test_a_file_keeps_its_position_unless_a_forward_writes(settings, tmp_path):
    (tmp_path / "file").write_text("first\nsecond\n")
    x = torch.randn(2, 4)
    with open(tmp_path / "file", "r+") as file:
        file.readline()
        assert attnscope.trace(Changes(lambda held: held.read(1), file), x, **settings).totals.macs == 32
        assert attnscope.trace(Changes(lambda given: given.read(1)), x, file, **settings).totals.macs == 32
        assert file.readline() == "second\n"
        assert attnscope.trace(Changes(lambda held: held.write("third\n"), file), x, **settings).totals.macs == 32
        file.write("last\n")
    lines = (tmp_path / "file").read_text().splitlines()
    assert (lines[:2], {*lines[2:-1]}, lines[-1]) == (["first", "second"], {"third"}, "last")


def test_memory_that_cannot_be_read_is_left_alone():
    """A handle of a C library may point anywhere; to follow it would end the process."""
    module = nn.Linear(4, 4)
    module.handle = ctypes.cast(ctypes.c_void_p(8), ctypes.POINTER(ctypes.c_int))
    assert attnscope.trace(module, torch.rand(2, 4)).totals.macs == 2 * 4 * 4
