"""One process of the stress test of lifetimes: begins, fills, leases, binds and ends them at random, and works in
directories that expire under its feet. Prints what was answered in a way that no rule allows."""
import errno
import os
import random
import subprocess
import sys
import time

# ESTALE: two directories of one path have gone while the kernel was looking it up.
ALLOWED = {errno.ENOENT, errno.EEXIST, errno.EPERM, errno.ECANCELED, errno.EOWNERDEAD, errno.ENOTDIR, errno.EISDIR,
           errno.ESRCH, errno.ESTALE}
ATTRIBUTE = "user.promisefs."


class Process:
    def __init__(self, root, control, number):
        self.root, self.control, self.random = root, control, random.Random(number)

    def directory(self):
        return f"{self.root}/d{self.random.randrange(4)}"

    def key(self):
        return f"{self.directory()}/k{self.random.randrange(30)}"

    def lifetime(self):
        return f"{self.control}/lifetimes/L{self.random.randrange(6)}"

    def member(self):
        return f"{self.lifetime()}/m{self.random.randrange(50)}"

    def put(self):
        key = self.key()
        os.makedirs(os.path.dirname(key), exist_ok=True)
        with open(key, "wb", buffering=0) as file:
            file.write(bytes(self.random.randrange(3000)))

    def get(self):
        with open(self.key(), "rb", buffering=0) as file:
            file.read()

    def add(self):
        os.link(self.key(), self.member())

    def add_to_self(self):
        os.link(self.key(), f"{self.control}/lifetimes/self/m{self.random.randrange(9)}")

    def begin(self):
        os.mkdir(self.lifetime())

    def end(self):
        os.rmdir(self.lifetime())

    def rename(self):
        os.rename(self.lifetime(), self.lifetime())

    def evict(self):
        os.unlink(self.random.choice([self.key(), self.member()]))

    def list(self):
        for name in os.listdir(f"{self.control}/lifetimes"):
            os.listdir(f"{self.control}/lifetimes/{name}")

    def lease(self):
        value = self.random.choice(["none", f"{self.random.randrange(1, 200)}ms", "+10ms"])
        path = self.random.choice([self.key(), self.lifetime(), self.directory()])
        os.setxattr(path, ATTRIBUTE + "lease", value.encode())

    def bind(self):
        process = subprocess.Popen(["sleep", f"{self.random.random() / 10}"])
        try:
            os.setxattr(self.random.choice([self.key(), self.lifetime()]), ATTRIBUTE + "pid", str(process.pid).encode())
        finally:
            process.wait()

    def inherit(self):
        os.setxattr(self.directory(), ATTRIBUTE + "lifetime", os.path.basename(self.lifetime()).encode())

    def tree(self):
        path = f"{self.directory()}/s{self.random.randrange(3)}"
        os.makedirs(f"{path}/a/b", exist_ok=True)
        with open(f"{path}/a/b/file", "w"):
            pass
        os.setxattr(path, ATTRIBUTE + "lease", f"{self.random.randrange(300)}ms".encode())

    def future(self):
        key = self.key()
        os.close(os.open(f"{self.control}/future{key[len(self.root):]}", os.O_CREAT | os.O_WRONLY, 0o644))
        os.setxattr(key, ATTRIBUTE + "lease", b"20ms")

    def run(self, end):
        calls = [self.put] * 10 + [self.add] * 8 + [self.get] * 6 + [self.begin, self.end, self.lease] * 3 + [
            self.add_to_self, self.rename, self.evict, self.list, self.bind, self.inherit, self.tree, self.future]
        while time.monotonic() < end:
            call = self.random.choice(calls)
            try:
                call()
            except OSError as error:
                if error.errno not in ALLOWED:
                    print(f"{call.__name__}: {error!r}", flush=True)


if __name__ == "__main__":
    Process(sys.argv[1], sys.argv[2], int(sys.argv[3])).run(time.monotonic() + float(sys.argv[4]))
