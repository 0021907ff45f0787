"""Checks of the connector for ProxyStore, and of ProxyStore's own way of using a directory; see python_rig.py.

ProxyStore is not in Debian, so what it does with a connector is done here by stand-ins, written after its
documentation: the store's get(), the factory that polls, and a connector that keeps objects as files of a directory.
"""
import copy
import errno
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import uuid
import warnings
from typing import Any, NamedTuple, Protocol, runtime_checkable

from python_rig import Child, eventually, is_waited_for, main, raises

import promisefs
from promisefs import PromiseConnector, PromiseKey

CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


@runtime_checkable
class Connector(Protocol):
    def close(self) -> None: ...
    def config(self) -> dict: ...
    @classmethod
    def from_config(cls, config: dict) -> Any: ...
    def evict(self, key) -> None: ...
    def exists(self, key) -> bool: ...
    def get(self, key): ...
    def get_batch(self, keys): ...
    def put(self, obj): ...
    def put_batch(self, objs): ...


@runtime_checkable
class DeferrableConnector(Connector, Protocol):
    def new_key(self, obj=None): ...
    def set(self, key, obj) -> None: ...


class MissingKey(Exception):
    pass


class PollingFactory:
    """What a proxy of a future calls: asks the connector until it has something, or until the sleeps add up."""

    def __init__(self, key, connector, interval=1.0, timeout=None):
        self.key, self.kind, self.options = key, type(connector), connector.config()
        self.interval, self.timeout, self.asked = interval, timeout, 0

    def __call__(self):
        connector, waited = self.kind.from_config(self.options), 0.0
        while True:
            self.asked += 1
            data = connector.get(self.key)
            if data is not None:
                return pickle.loads(data)
            if self.timeout is not None and waited >= self.timeout:
                raise MissingKey(self.key)
            time.sleep(self.interval)
            waited += self.interval


class FileKey(NamedTuple):
    filename: str


class FileConnector:
    """Objects as files of a directory, which is removed when the connector is closed.

    It does what ProxyStore's does, system call by system call: with markers, as later versions, a second, empty file
    says that the first one has been written.
    """

    def __init__(self, store_dir, clear=True, markers=True):
        self.store_dir, self.clear, self.markers = os.path.abspath(store_dir), clear, markers
        if not os.path.exists(self.store_dir):
            os.makedirs(self.store_dir, exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _path(self, key):
        return os.path.join(self.store_dir, key.filename)

    def _sign(self, key):
        """What there is when the object is."""
        return self._path(key) + (".ready" if self.markers else "")

    def close(self, clear=None):
        if (self.clear if clear is None else clear) and os.path.isdir(self.store_dir):
            shutil.rmtree(self.store_dir)

    def config(self):
        return {"store_dir": self.store_dir, "clear": self.clear, "markers": self.markers}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def evict(self, key):
        for path in dict.fromkeys((self._path(key), self._sign(key))):
            if os.path.exists(path):
                os.remove(path)

    def exists(self, key):
        return os.path.exists(self._sign(key))

    def get(self, key):
        if not os.path.exists(self._sign(key)):
            return None
        with open(self._path(key), "rb") as file:
            return file.read()

    def get_batch(self, keys):
        return [self.get(key) for key in keys]

    def new_key(self, obj=None):
        return FileKey(str(uuid.uuid4()))

    def set(self, key, obj):
        with open(self._path(key), "wb", buffering=0) as file:
            file.write(obj)
        if self.markers:
            open(self._sign(key), "wb").close()

    def put(self, obj):
        key = self.new_key()
        self.set(key, obj)
        return key

    def put_batch(self, objs):
        return [self.put(obj) for obj in objs]


def both(directory):
    return (PromiseConnector(os.path.join(directory, "promise")),
            FileConnector(os.path.join(directory, "file"), markers=False),
            FileConnector(os.path.join(directory, "marked"), markers=True))


# ---- the protocol ----------------------------------------------------------------------------------------------------

@check
def protocols(directory):
    for connector in both(directory):
        assert isinstance(connector, Connector) and isinstance(connector, DeferrableConnector)
    key = connector.new_key()
    assert isinstance(PromiseConnector(directory).put(b""), tuple) and PromiseKey._fields == ("name",) and key
    assert {key, copy.copy(key), pickle.loads(pickle.dumps(key))} == {key}


@check
def objects(directory):
    for connector in both(directory):
        for data in (b"", b"data", os.urandom(1_000_001), bytearray(b"array"), memoryview(b"view"),
                     memoryview(bytes(12)).cast("B", (3, 4))):
            key = connector.put(data)
            assert connector.get(key) == bytes(data) and connector.exists(key)
        keys = connector.put_batch([b"a", b"b"])
        assert connector.get_batch(keys) == [b"a", b"b"] and len(set(keys)) == 2
        connector.evict(keys[0])
        connector.evict(keys[0])
        assert not connector.exists(keys[0]) and connector.get(keys[0]) is None
        assert connector.get_batch(keys) == [None, b"b"]
        connector.set(keys[1], b"replaced")
        assert connector.get(keys[1]) == b"replaced"


@check
def config(directory):
    connector = PromiseConnector(os.path.join(directory, "new"), clear=True, timeout=5)
    assert connector.config() == {"directory": os.path.join(directory, "new"), "clear": True, "timeout": 5}
    key = connector.put(b"data")
    for again in (PromiseConnector.from_config(pickle.loads(pickle.dumps(connector.config()))),
                  pickle.loads(pickle.dumps(connector))):
        assert again.config() == connector.config() and again.get(key) == b"data"
    assert None not in PromiseConnector(directory).config().values(), "TOML has no None"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PromiseConnector.from_config({**connector.config(), "later": 1})
    assert len(caught) == 1 and "later" in str(caught[0].message)
    with raises(OSError, errno.ENODEV):
        PromiseConnector("/")
    os.chdir(directory)
    assert PromiseConnector("new").directory == connector.directory


@check
def close(directory):
    connector = PromiseConnector(os.path.join(directory, "new"))
    key = connector.put(b"data")
    connector.new_key()
    with open(os.path.join(connector.directory, "mine"), "wb"):
        pass
    assert connector.close() is False and connector.close(clear=False) is False and connector.get(key) == b"data"
    assert connector.close(clear=True) is True and os.listdir(connector.directory) == ["mine"]
    os.unlink(os.path.join(connector.directory, "mine"))
    assert connector.close(clear=True) and not os.path.exists(connector.directory) and connector.close(clear=True)
    for kind in (PromiseConnector, FileConnector):
        path = os.path.join(directory, kind.__name__)
        with kind(path, clear=False) as connector:
            key = connector.put(b"data")
        assert connector.get(key) == b"data"
        with kind(path, clear=True) as connector:
            assert connector.get(key) == b"data"
        assert not os.path.exists(path)


# ---- futures ---------------------------------------------------------------------------------------------------------

def future_of(connector, key):
    return promisefs.Store(connector.directory).attach(key.name)


@check
def a_future_is_waited_for_in_the_kernel(directory):
    connector = PromiseConnector(directory)
    key = connector.new_key()
    assert not connector.exists(key)
    factories = [PollingFactory(key, connector) for _ in range(10)]
    results = []
    threads = [threading.Thread(target=lambda one=one: results.append(one())) for one in factories]
    for thread in threads:
        thread.start()
    is_waited_for(future_of(connector, key), 10)
    start = time.monotonic()
    connector.set(key, pickle.dumps([1, 2, 3]))
    for thread in threads:
        thread.join(20)
    assert results == [[1, 2, 3]] * 10 and [one.asked for one in factories] == [1] * 10
    assert time.monotonic() - start < 0.9, "nobody has slept for an interval"
    assert connector.exists(key)


@check
def a_future_between_processes(directory):
    connector = PromiseConnector(directory)
    store, key = promisefs.Store(directory), connector.new_key()
    reader = Child("c = promisefs.PromiseConnector.from_config(given[0]); print(c.get(given[1]))", store,
                   connector.config(), key)
    is_waited_for(future_of(connector, key))
    Child("promisefs.PromiseConnector.from_config(given[0]).set(given[1], b'data')", store, connector.config(),
          key).end()
    assert reader.end() == "b'data'"


@check
def timeouts(directory):
    connector = PromiseConnector(directory, timeout=0.02)
    key = connector.new_key()
    assert connector.get(key) is None and connector.get_batch([key]) == [None]
    factory = PollingFactory(key, connector, interval=0.01, timeout=0.05)
    with raises(MissingKey):
        factory()
    assert factory.asked > 2
    threading.Timer(0.05, connector.set, [key, pickle.dumps("late")]).start()
    assert PollingFactory(key, connector, interval=0.01, timeout=20)() == "late"


@check
def futures_that_fail(directory):
    connector = PromiseConnector(directory)
    store, key = promisefs.Store(directory), connector.new_key()
    child = Child("f = open(store.path(given[0]), 'wb', buffering=0); f.write(b'torn'); os.kill(os.getpid(), 9)", store,
                  key.name)
    with raises(promisefs.BrokenPromise, errno.EOWNERDEAD):
        connector.get(key)
    assert child.process.wait(20) == -signal.SIGKILL and connector.exists(key)
    connector.set(key, b"second attempt")
    assert connector.get(key) == b"second attempt"
    key = connector.new_key()
    caught = []

    def get():
        try:
            connector.get(key)
        except promisefs.Cancelled as error:
            caught.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    is_waited_for(future_of(connector, key))
    connector.evict(key)
    thread.join(20)
    assert len(caught) == 1 and connector.get(key) is None and not connector.exists(key)


# ---- a connector that knows nothing of promisefs ---------------------------------------------------------------------

@check
def files_of_a_directory(directory):
    """Readers that look while a file is written get it whole, which FileConnector by itself does not give."""
    connector = FileConnector(os.path.join(directory, "store"), markers=False)
    key = connector.new_key()
    code = "\n".join(["print('looks', flush=True)", "while not os.path.exists(given[0]): time.sleep(0.001)",
                      "print(len(pickle.loads(open(given[0], 'rb').read())))"])
    path = os.path.join(connector.store_dir, key.filename)
    reader = Child(code, promisefs.Store(directory), path)
    assert reader.said() == "looks"
    with open(path, "wb", buffering=0) as file:
        data = pickle.dumps(list(range(10_000)))
        file.write(data[:100])
        is_waited_for(promisefs.Store(connector.store_dir).attach(key.filename))
        file.write(data[100:])
    assert reader.end() == "10000"
    keys = connector.put_batch([b"x"] * 100)
    assert all(map(connector.exists, keys)) and connector.get_batch(keys) == [b"x"] * 100
    connector.evict(keys[0])
    connector.close()
    connector.close()
    assert os.listdir(directory) == []


@check
def files_of_a_directory_and_many_processes(directory):
    """Futures that are polled: the factories of three processes, and a directory that is cleared."""
    for markers in (False, True):
        connector = FileConnector(os.path.join(directory, "store"), markers=markers)
        keys = [connector.new_key() for _ in range(20)]
        code = "\n".join([f"sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})",
                          "from connector_checks import FileConnector, FileKey, PollingFactory",
                          "connector = FileConnector.from_config(given[0])", "print('ready', flush=True)",
                          "for name in given[1]:",
                          "    factory = PollingFactory(FileKey(name), connector, interval=0.001, timeout=20)",
                          "    assert factory() == b'd' * 100_000 and connector.exists(factory.key)"])
        readers = [Child(code, promisefs.Store(directory), connector.config(), [key.filename for key in keys])
                   for _ in range(3)]
        for reader in readers:
            assert reader.said() == "ready"
        for key in keys:
            connector.set(key, pickle.dumps(b"d" * 100_000))
        for reader in readers:
            reader.end()
        connector.evict(keys[0])
        assert connector.get(keys[0]) is None and len(os.listdir(connector.store_dir)) == 19 * (1 + markers)
        connector.close(clear=False)
        assert connector.exists(keys[1])
        connector.close()
        assert os.listdir(directory) == []


if __name__ == "__main__":
    main(CHECKS, lambda directory: os.makedirs(directory, exist_ok=True) or directory)
