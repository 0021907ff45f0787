"""Small files: get and put, by one client and by several."""

import shutil

from .measure import Aim, Case, Row

# What the kernel does not wait for.
UNANSWERED = {"release", "other"}


def fill_keys(folder, files):
    folder.mkdir()
    for number in range(files):
        (folder / f"k{number}").write_bytes(b"v" * 4096)
    return folder


def get_once(rig, folder, clients=1):
    """Microseconds an operation."""
    count = rig.sizes.gets if clients == 1 else max(1, rig.sizes.client_operations // clients)
    return rig.seconds("get", folder, rig.sizes.files, count, clients) / (count * clients) * 1e6


def put_once(rig, parent, count, clients=1):
    folder = rig.fresh(parent)
    micro = rig.seconds("put", folder, count, clients) / (count * clients) * 1e6
    shutil.rmtree(folder)
    return micro


def set_once(rig, redis, count, clients=1):
    micro = rig.seconds("redis-set", redis, count, clients) / (count * clients) * 1e6
    rig.loop("redis-clear", redis)
    return micro


def redis_get_once(rig, redis, clients=1):
    count = rig.sizes.gets if clients == 1 else max(1, rig.sizes.client_operations // clients)
    return rig.seconds("redis-get", redis, rig.sizes.files, count, clients) / (count * clients) * 1e6


def counted_get(rig, ours, folder):
    """And how many requests of each get the kernel has waited for."""
    before = ours.requests()
    micro = get_once(rig, folder)
    after = ours.requests()
    count = sum(after[kind] - before[kind] for kind in after if kind not in UNANSWERED)
    return {"time": micro, "requests": count / rig.sizes.gets}


def file_contenders(rig):
    """{name: directory} of the file systems that are there."""
    found = {"ours": rig.ours().path, "native": rig.native(), "bindfs": rig.bindfs(), "mergerfs": rig.mergerfs()}
    return {name: path for name, path in found.items() if path}


def get(rig):
    contenders = {}
    for name, path in file_contenders(rig).items():
        folder = fill_keys(path / "keys", rig.sizes.files)
        contenders[name] = lambda folder=folder: {"time": get_once(rig, folder)}
    keys = rig.ours().path / "keys"
    contenders["ours"] = lambda: counted_get(rig, rig.ours(), keys)
    redis = rig.redis()
    if redis:
        contenders["redis"] = lambda: {"time": redis_get_once(rig, redis)}
    title = "get 4 KiB (open, read, close)"
    rows = [Row(title, "us", "ours", peer, None if peer == "native" else Aim("<", 1), "time")
            for peer in ("bindfs", "mergerfs", "redis", "native")]
    # What reads the counters before and after asks, too.
    slack = 20 / rig.sizes.gets
    one = Aim("<=", round(1 + slack, 3))
    rows.append(Row("synchronous requests per get", "requests", "ours", None, one, "requests"))
    return [Case("get", contenders, rows)]


def put(rig):
    count = rig.sizes.puts
    contenders = {name: lambda path=path: put_once(rig, path, count) for name, path in file_contenders(rig).items()}
    redis, appending = rig.redis(), rig.redis_appending()
    if redis:
        contenders["redis"] = lambda: set_once(rig, redis, count)
    if appending:
        contenders["redis aof"] = lambda: set_once(rig, appending, count)
    title = "put 4 KiB (create, write, close)"
    aims = {"bindfs": Aim("<", 1), "mergerfs": Aim("<", 1), "redis": Aim("<=", 1.5), "redis aof": Aim("<", 1)}
    return [Case("put", contenders, [Row(title, "us", "ours", peer, aims.get(peer)) for peer in (*aims, "native")])]


def put_disk(rig):
    """The same with store and append-only file on a disk, where fsync(2), which Redis calls and we do not, costs."""
    if not rig.disk:
        rig.skip("put on a disk", "no directory on a disk (--disk)")
        return []
    ours, native, count = rig.mount(base=rig.fresh(rig.disk)), rig.fresh(rig.disk), rig.sizes.durable_puts
    contenders = {"ours": lambda: put_once(rig, ours.path, count), "native": lambda: put_once(rig, native, count)}
    redis = rig.redis_appending(rig.disk)
    if redis:
        contenders["redis aof"] = lambda: set_once(rig, redis, count)
    return [Case("put on a disk", contenders, [
        Row("put 4 KiB, store on a disk", "us", "ours", "redis aof", Aim("<", 1)),
        Row("put 4 KiB, store on a disk", "us", "ours", "native")])]


# ---- several clients -------------------------------------------------------------------------------------------------

def throughput(rig, measure):
    """Operations a second of all clients, and how many cores were busy, whoever made them so."""
    per_second = 1e6 / measure()
    return {"rate": per_second / 1000, "cores": rig.cores_busy}


CLIENTS = (1, 2, 8)


def clients_case(what, contenders, is_ours_alone):
    rows = []
    for name in ("ours",) if is_ours_alone else ("ours", "redis"):
        two, eight = (Aim(">=", 1), Aim(">=", 0.9)) if name == "ours" else (None, None)
        title = f"{what}{'' if name == 'ours' else ' (redis)'}"
        rows += [Row(f"{title}: 2 clients against 1", "1000/s", f"{name} x2", f"{name} x1", two, "rate"),
                 Row(f"{title}: 8 clients against 2", "1000/s", f"{name} x8", f"{name} x2", eight, "rate")]
    rows += [Row(f"{what}: cores busy, {n} clients", "cores", f"ours x{n}", metric="cores") for n in CLIENTS]
    return Case(f"{what} by several clients", contenders, rows)


def clients_get(rig):
    keys = rig.ours().path / "client-keys"
    if not keys.exists():
        fill_keys(keys, rig.sizes.files)
    contenders = {f"ours x{n}": lambda n=n: throughput(rig, lambda: get_once(rig, keys, n)) for n in CLIENTS}
    redis = rig.redis()
    if redis:
        contenders.update({f"redis x{n}": lambda n=n: throughput(rig, lambda: redis_get_once(rig, redis, n))
                           for n in CLIENTS})
    return clients_case("get", contenders, not redis)


def clients_put(rig):
    path, redis = rig.ours().path, rig.redis()

    def count(n):
        return max(1, rig.sizes.client_operations // n)

    contenders = {f"ours x{n}": lambda n=n: throughput(rig, lambda: put_once(rig, path, count(n), n)) for n in CLIENTS}
    if redis:
        contenders.update({f"redis x{n}": lambda n=n: throughput(rig, lambda: set_once(rig, redis, count(n), n))
                           for n in CLIENTS})
    return clients_case("put", contenders, not redis)


def clients(rig):
    return [clients_get(rig), clients_put(rig)]


SCENARIOS = {"get": get, "put": put, "put-disk": put_disk, "clients": clients}
