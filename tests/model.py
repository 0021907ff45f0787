"""What promisefs promises, as a model in memory: objects, futures, lifetimes, owners, borrows, one-time objects.

One class, a method for each thing that a process can do, and the answer that it must get: a value, or Refused with an
errno. Nothing here waits and nothing takes time: a lease is there or not, or has just expired; an open that would wait
gives a descriptor that has not settled, as O_NONBLOCK does. tests/test_model.py compares it with a mount.

A path is `a/b` for a key, or begins with the name of a control directory and a colon: `life:L/name`, `own:x`, `ref:r`.
"""


class Refused(Exception):
    """The call must fail with this errno, or with one of these."""

    def __init__(self, *names):
        super().__init__(" or ".join(names))
        self.names = names


class OneOf(list):
    """Any of these answers is right: bytes, or the name of an errno."""


def refuse_unless(condition, name):
    if not condition:
        raise Refused(name)


class Version:
    """Bytes that a reader may have. A draft until it is published; `writers` are the descriptors that write it."""

    def __init__(self, content=b"", replaces=False, copied=False):
        self.content = bytearray(content)
        self.replaces = replaces  # the object was published before
        self.copied = copied      # it began as a copy of the version before
        self.changed = False
        self.fsynced = False
        self.writers = []
        self.revoked = False      # the borrow that it was written through is gone


class Node:
    """What files and directories have in common: they may end by themselves."""

    def __init__(self):
        self.lease = False
        self.pid = None
        self.attributes = {}


class Directory(Node):
    """Of keys; or a lifetime, whose entries are members and not names; or one of `.promisefs`."""

    def __init__(self, kind, parent=None, name=""):
        super().__init__()
        self.kind = kind
        self.parent, self.name = parent, name
        self.entries = {}
        self.joins = None  # the lifetime that new files in it join

    @property
    def alive(self):
        return self.parent is None or self.parent.entries.get(self.name) is self and self.parent.alive

    def above(self, other):
        while other is not None:
            if other is self:
                return True
            other = other.parent
        return False


class Handle(Node):
    """A borrow: what is in ref/ and mut/."""

    def __init__(self, kind, file, place):
        super().__init__()
        self.kind, self.file, self.place = kind, file, place
        self.memberships = set()


class File(Node):
    """An object. It is gone when it has neither a name nor a handle."""

    def __init__(self, state):
        super().__init__()
        self.state = state
        self.version = 0
        self.current = None
        self.draft = None
        self.declared = False
        self.error = None
        self.deadline = False
        self.evict = False        # the first one to open it takes it
        self.taken = None         # the descriptor by which somebody has
        self.names = set()        # (directory, name)
        self.memberships = set()  # the same, in lifetimes
        self.borrows = set()
        self.waiting = []         # descriptors that settle with it

    @property
    def gone(self):
        return not self.names and not self.borrows

    @property
    def borrowed(self):
        """`none`, `ref N` or `mut`."""
        if not self.borrows:
            return "none"
        return "mut" if any(handle.kind == "mut" for handle in self.borrows) else f"ref {len(self.borrows)}"

    @property
    def ready(self):
        return self.state == "ready"


class Open:
    """A descriptor of a process."""

    def __init__(self, process, file, version=None, writes=False, reads=True, appends=False):
        self.process, self.file, self.version = process, file, version
        self.writes, self.reads, self.appends = writes, reads, appends
        self.offset = 0
        self.takes = None   # the names that the object has again when this process is killed before it closes
        self.outcomes = []  # what it may have settled with: versions and names of errnos; empty: it has not

    def settle(self, *outcomes):
        self.outcomes = list(outcomes)


class Model:
    def __init__(self):
        self.keys = Directory("keys")
        self.areas = {"": self.keys, "life": Directory("lifetimes"),
                      **{kind: Directory(kind) for kind in ("own", "ref", "mut")}}
        self.opens = []
        self.numbers = 0
        self.aborted = {}    # key: the bytes that must be there
        self.unsure = set()  # keys of which that is not known

    # ---- paths -------------------------------------------------------------------------------------------------------

    def parent_of(self, path):
        """The directory that a path is in, and the last name."""
        area, _, rest = path.rpartition(":")
        directory = self.areas[area]
        *folders, name = rest.split("/")
        for folder in folders:
            entry = directory.entries.get(folder)
            refuse_unless(entry is not None, "ENOENT")
            refuse_unless(isinstance(entry, Directory), "ENOTDIR")
            directory = entry
        return directory, name

    def look(self, path):
        directory, name = self.parent_of(path)
        refuse_unless(name in directory.entries, "ENOENT")
        return directory.entries[name]

    def look_at_file(self, path):
        """An object, by a name of its own or by a handle."""
        node = self.look(path)
        refuse_unless(not isinstance(node, Directory), "EISDIR")
        return node.file if isinstance(node, Handle) else node

    def exists(self, path):
        try:
            self.look(path)
        except Refused:
            return False
        return True

    def files(self, directory=None):
        """All (path, file) of the keys."""
        directory = directory or self.keys
        for name, entry in directory.entries.items():
            if isinstance(entry, File):
                yield self.path_of(directory, name), entry
            elif isinstance(entry, Directory):
                yield from self.files(entry)

    def directories(self, directory=None):
        directory = directory or self.keys
        for entry in directory.entries.values():
            if isinstance(entry, Directory):
                yield self.path_of(entry.parent, entry.name), entry
                yield from self.directories(entry)

    def path_of(self, directory, name):
        parts = [name]
        while directory.parent is not None:
            parts.insert(0, directory.name)
            directory = directory.parent
        return "/".join(parts) if directory is self.keys else f"{directory.kind}:" + "/".join(parts)

    # ---- names -------------------------------------------------------------------------------------------------------

    def _add_name(self, directory, name, file):
        directory.entries[name] = file
        file.names.add((directory, name))

    def _drop_name(self, directory, name, waiters_get):
        file = directory.entries.pop(name)
        file.names.discard((directory, name))
        if file.gone:
            self._forget(file, waiters_get)

    def _forget(self, file, *waiters_get):
        """The last name has gone. Whoever has it open keeps what he has; a draft will never be published."""
        for directory, name in file.memberships:
            directory.entries.pop(name, None)
        file.memberships.clear()
        self._settle_waiting(file, *waiters_get)

    def _join(self, directory, name, file):
        if name in directory.entries:
            self.numbers += 1
            name += f".{self.numbers}"  # really the number of the object
        directory.entries[name] = file
        file.memberships.add((directory, name))

    def _new_file(self, path, state):
        directory, name = self.parent_of(path)
        refuse_unless(directory.kind in ("keys", "own"), "EPERM")
        file = File(state)
        self._add_name(directory, name, file)
        if directory.joins is not None and directory.joins.alive:
            self._join(directory.joins, name, file)
        return file

    def mkdir(self, path):
        directory, name = self.parent_of(path)
        refuse_unless(name not in directory.entries, "EEXIST")
        refuse_unless(directory.kind in ("keys", "lifetimes"), "EPERM")
        kind = "lifetime" if directory.kind == "lifetimes" else "keys"
        directory.entries[name] = Directory(kind, directory, name)
        directory.entries[name].joins = directory.joins

    def rmdir(self, path):
        directory = self.look(path)
        refuse_unless(isinstance(directory, Directory), "ENOTDIR")
        if directory.kind == "lifetime":
            self._end(directory)
            return
        refuse_unless(not directory.entries, "ENOTEMPTY")
        del directory.parent.entries[directory.name]

    def unlink(self, path):
        directory, name = self.parent_of(path)
        node = self.look(path)
        refuse_unless(not isinstance(node, Directory), "EISDIR")
        if isinstance(node, Handle):
            self._release(node)
        elif directory.kind == "lifetime":
            refuse_unless(not node.borrows, "EBUSY")
            self._evict(node)
        else:
            self._check_last_name(node)
            self._drop_name(directory, name, "ECANCELED")

    @staticmethod
    def _check_last_name(file):
        """Of what is borrowed: it stays."""
        refuse_unless(not file.borrows or len(file.names) > 1, "EBUSY")

    def link(self, source, path):
        file = self.look(source)
        directory, name = self.parent_of(path)
        refuse_unless(name not in directory.entries, "EEXIST")
        refuse_unless(not isinstance(file, Directory), "EPERM")
        if directory.kind == "lifetime":
            self._join(directory, name, file)
            return
        refuse_unless(isinstance(file, File), "EPERM")
        if directory.kind in ("ref", "mut"):
            self._borrow(file, directory, name)
            return
        refuse_unless(directory.kind == "keys" and not self._is_owned(file), "EPERM")
        self._add_name(directory, name, file)

    @staticmethod
    def _is_owned(file):
        """By an owner handle: then it has no key."""
        return any(directory.kind == "own" for directory, _ in file.names)

    def rename(self, source, path, replace=True):
        directory, name = self.parent_of(source)
        to, new = self.parent_of(path)
        node = self.look(source)
        there = to.entries.get(new)
        refuse_unless(replace or there is None, "EEXIST")
        if isinstance(node, Directory):
            refuse_unless(not node.above(to), "EINVAL")
        refuse_unless(not isinstance(there, Directory) or not there.above(directory), "ENOTEMPTY")
        if node is there:
            return
        self._check_kinds(node, there)
        self._check_move(node, directory.kind, to.kind)
        refuse_unless(to.kind != "lifetimes" or there is None, "EEXIST")
        if isinstance(there, Directory):
            refuse_unless(not there.entries, "ENOTEMPTY")
            del to.entries[new]
        elif isinstance(there, Handle):
            self._release(there)
        elif there is not None:
            self._check_last_name(there)
            self._drop_name(to, new, "ECANCELED")
        self._move(directory, name, to, new)

    @staticmethod
    def _check_move(node, kind, to):
        """What may be moved from where to where."""
        if kind == to:
            refuse_unless(kind != "lifetime", "EPERM")
            return
        refuse_unless({kind, to} == {"keys", "own"} and isinstance(node, File), "EPERM")
        refuse_unless(to != "own" or len(node.names) == 1, "EMLINK")

    @staticmethod
    def _check_kinds(node, there):
        if there is not None and isinstance(node, Directory) != isinstance(there, Directory):
            raise Refused("EISDIR" if isinstance(there, Directory) else "ENOTDIR")

    def _move(self, directory, name, to, new):
        node = directory.entries.pop(name)
        to.entries[new] = node
        if isinstance(node, Directory):
            node.parent, node.name = to, new
        elif isinstance(node, Handle):
            node.place = to, new
        else:
            node.names.remove((directory, name))
            node.names.add((to, new))
            if directory.kind == "own" and to.kind != "own":
                node.pid = None  # it was bound for as long as a handle owned it

    def listing(self, path=""):
        directory = self.look(path) if path else self.keys
        refuse_unless(isinstance(directory, Directory), "ENOTDIR")
        return sorted(directory.entries)

    # ---- what ends by itself -----------------------------------------------------------------------------------------

    def _evict(self, file, *waiters_get):
        """The names go at once; what is borrowed lives on until it has been given back."""
        for directory, name in file.names:
            del directory.entries[name]
        file.names.clear()
        if file.taken:
            file.taken.takes = None
        file.lease, file.pid = False, None
        self._forget(file, *(waiters_get or ("ECANCELED",)))

    def _end(self, directory):
        """A lifetime, or a directory that expires, with all that is in it."""
        del directory.parent.entries[directory.name]
        for entry in list(directory.entries.values()):
            self._expire(entry)
        directory.entries.clear()

    def _expire(self, node):
        """Whatever it is, if it is still there."""
        if isinstance(node, Directory) and node.alive:
            self._end(node)
        elif isinstance(node, Handle) and node in node.file.borrows:
            self._release(node)
        elif isinstance(node, File) and (node.names or node.taken):
            self._evict(node)

    def set_lease(self, path, value):
        node = self.look(path)
        if value == "past":
            self._expire(node)
        else:
            node.lease = value != "none"

    def set_attribute(self, path, name, value):
        """One of the user's own; None removes it."""
        node = self.look(path)
        refuse_unless(not isinstance(node, Handle) or node.kind == "mut", "EPERM")
        attributes = node.file.attributes if isinstance(node, Handle) else node.attributes
        refuse_unless(value is not None or name in attributes, "ENODATA")
        attributes.pop(name, None)
        if value is not None:
            attributes[name] = value

    def set_pid(self, path, process):
        self.look(path).pid = process

    def set_joins(self, path, lifetime):
        """user.promisefs.lifetime of a directory."""
        directory = self.look(path)
        refuse_unless(isinstance(directory, Directory) and directory.kind == "keys", "EINVAL")
        directory.joins = self.look("life:" + lifetime)

    def everything(self):
        """All files and directories that can end."""
        nodes = [node for _, node in (*self.directories(), *self.files())]
        for kind in ("life", "own", "ref", "mut"):
            nodes += self.areas[kind].entries.values()
        nodes += [one.file for one in self.takers()]
        return list(dict.fromkeys(nodes))

    # ---- borrows -----------------------------------------------------------------------------------------------------

    def _borrow(self, file, directory, name):
        free = not file.borrows or directory.kind == "ref" and file.borrowed != "mut"
        refuse_unless(free and file.ready and file.draft is None, "EBUSY")
        handle = Handle(directory.kind, file, (directory, name))
        directory.entries[name] = handle
        file.borrows.add(handle)

    def _release(self, handle):
        """What is being written through it is never published."""
        directory, name = handle.place
        file = handle.file
        del directory.entries[name]
        for lifetime, member in handle.memberships:
            lifetime.entries.pop(member, None)
        file.borrows.remove(handle)
        if file.draft is not None:
            file.draft.revoked = True
            file.draft = None

    def owners(self, node):
        """The paths of the owner, of which `owner` is one."""
        file = node.file if isinstance(node, Handle) else node
        return {self.path_of(*name) for name in file.names}

    # ---- one-time objects --------------------------------------------------------------------------------------------

    def open_once(self, process, path):
        """Below once/. What that waits for is not modelled."""
        file = self.look(path)
        refuse_unless(isinstance(file, File), "EISDIR")
        refuse_unless(not file.borrows, "EBUSY")
        if file.state == "failed":
            raise Refused(file.error[0])
        return self._take(process, file)

    def _take(self, process, file):
        descriptor = self._keep(Open(process, file, file.current))
        descriptor.takes, file.taken = set(file.names), descriptor
        for directory, name in file.names:
            del directory.entries[name]
        file.names.clear()
        return descriptor

    def _give_back(self, descriptor):
        """To the names that are free; if there is none, it is kept below aborted/."""
        file = descriptor.file
        for directory, name in descriptor.takes:
            if directory.alive and name not in directory.entries:
                self._add_name(directory, name, file)
            self.unsure.add(self.path_of(directory, name))

    def set_evict(self, path, value):
        file = self.look(path)
        refuse_unless(not isinstance(file, Handle), "EPERM")
        refuse_unless(isinstance(file, File), "EINVAL")
        file.evict = value

    def takers(self):
        """Descriptors by which an object was taken."""
        return [one for one in self.opens if one.takes]

    # ---- futures -----------------------------------------------------------------------------------------------------

    def declare(self, path):
        directory, name = self.parent_of(path)
        if name not in directory.entries:
            self._new_file(path, "pending").declared = True
            return
        file = self.look_at_file(path)
        refuse_unless(not file.ready, "EEXIST")
        if file.state == "failed":
            file.state = "writing" if file.draft else "pending"
            file.error = None
        file.declared = True

    def set_future(self, process, path, data):
        """Through future/: open, write, close."""
        self.declare(path)
        descriptor = self.open(process, path, "w")
        self.write(descriptor, data)
        self.close(descriptor)

    def cancel(self, path):
        file = self.look_at_file(path)
        if file.ready:
            raise Refused("EEXIST", *["EBUSY"] * bool(file.borrows))
        self.unlink(path)

    def fail(self, path, error, reason):
        file = self.look(path)
        refuse_unless(not isinstance(file, Handle), "EPERM")
        refuse_unless(isinstance(file, File), "EINVAL")
        refuse_unless(not file.ready, "EEXIST")
        self._fail(file, error, reason)

    def _fail(self, file, error, reason):
        file.state, file.error, file.declared, file.deadline = "failed", (error, reason), True, False
        self._settle_waiting(file, error)

    def set_deadline(self, path, given):
        file = self.look(path)
        refuse_unless(not isinstance(file, Handle), "EPERM")
        waits = isinstance(file, File) and (file.state == "pending" or file.state == "writing" and file.declared)
        refuse_unless(waits, "EINVAL")
        file.deadline = given

    # ---- opening -----------------------------------------------------------------------------------------------------

    def would_wait(self, process, path):
        try:
            file = self.look_at_file(path)
        except Refused:
            return False
        return file.state in ("pending", "writing") and not self._writes(process, file)

    @staticmethod
    def _writes(process, file):
        return file.draft is not None and any(one.process == process for one in file.draft.writers)

    def open(self, process, path, flags):
        """flags: letters as in fopen(3), and t(runcate) c(reate) x(clusive): `r`, `wct`, `r+`, `wa`."""
        directory, name = self.parent_of(path)
        writes = flags != "r"
        if name not in directory.entries:
            refuse_unless("c" in flags, "ENOENT")
            file = self._new_file(path, "writing")
            file.draft = Version()
            return self._open_draft(process, file, flags)
        refuse_unless("x" not in flags, "EEXIST")
        file = self.look_at_file(path)
        takes = file.evict and not writes and directory.entries[name] is file
        self._check_borrows(directory.entries[name], writes or takes)
        if takes and file.ready:
            return self._take(process, file)
        return self._open_for_writing(process, file, flags) if writes else self._open_for_reading(process, file)

    @staticmethod
    def _check_borrows(node, writes):
        if isinstance(node, Handle):
            refuse_unless(not writes or node.kind == "mut", "EACCES")
        else:
            refuse_unless(not node.borrows or not writes and node.borrowed != "mut", "EBUSY")

    def _keep(self, descriptor):
        self.opens.append(descriptor)
        return descriptor

    def _open_for_reading(self, process, file):
        if self._writes(process, file):
            return self._keep(Open(process, file, file.draft))
        if file.ready:
            return self._keep(Open(process, file, file.current))
        if file.state == "failed":
            raise Refused(file.error[0])
        descriptor = self._keep(Open(process, file))
        file.waiting.append(descriptor)
        return descriptor

    def _open_for_writing(self, process, file, flags):
        if file.draft is None:
            keeps = file.ready and "t" not in flags
            content = file.current.content if keeps else b""
            file.draft = Version(content, replaces=file.ready, copied=keeps)
            file.error = None
            if not file.ready:
                file.state = "writing"
        elif "t" in flags:
            self._change(file.draft, 0, b"", truncate=True)
        return self._open_draft(process, file, flags)

    def _open_draft(self, process, file, flags):
        descriptor = Open(process, file, file.draft, writes=True, reads="+" in flags, appends="a" in flags)
        file.draft.writers.append(descriptor)
        return self._keep(descriptor)

    # ---- open files --------------------------------------------------------------------------------------------------

    def read(self, descriptor):
        """All of it."""
        refuse_unless(descriptor.reads, "EBADF")
        if descriptor.version is not None:
            return bytes(descriptor.version.content)
        refuse_unless(descriptor.outcomes, "EAGAIN")
        errors = [one for one in descriptor.outcomes if isinstance(one, str)]
        if len(errors) == len(descriptor.outcomes):
            raise Refused(*errors)
        if not errors:
            descriptor.version = descriptor.outcomes[0]
            return bytes(descriptor.version.content)
        return OneOf(bytes(one.content) if isinstance(one, Version) else one for one in descriptor.outcomes)

    @staticmethod
    def _change(version, at, data, truncate=False):
        version.changed = True
        if truncate:
            del version.content[at:]
        if at > len(version.content):
            version.content.extend(bytes(at - len(version.content)))
        version.content[at:at + len(data)] = data

    def write(self, descriptor, data):
        refuse_unless(descriptor.writes, "EBADF")
        at = len(descriptor.version.content) if descriptor.appends else descriptor.offset
        if data:
            self._change(descriptor.version, at, data)
        descriptor.offset = at + len(data)
        return len(data)

    def truncate_open(self, descriptor, size):
        refuse_unless(descriptor.writes, "EINVAL")
        self._change(descriptor.version, size, b"", truncate=True)

    def truncate(self, process, path, size):
        """Of a path: open, cut, close."""
        self.look_at_file(path)
        descriptor = self.open(process, path, "w")
        self.truncate_open(descriptor, size)
        self.close(descriptor)

    def fsync(self, descriptor):
        refuse_unless(not descriptor.version.revoked, "EBUSY")
        if descriptor.writes:
            descriptor.version.fsynced = True

    def close(self, descriptor, killed=False):
        self.opens.remove(descriptor)
        file, version = descriptor.file, descriptor.version
        if descriptor in file.waiting:
            file.waiting.remove(descriptor)
        if descriptor.takes:
            file.taken = None
            if killed:
                self._give_back(descriptor)
        if not descriptor.writes:
            return
        version.writers.remove(descriptor)
        if not version.writers and file.draft is version:
            self._settle_draft(file, killed)
        refuse_unless(not version.revoked, "EBUSY")

    # ---- what becomes of a draft -------------------------------------------------------------------------------------

    def _settle_draft(self, file, killed, crashed=False):
        draft, file.draft = file.draft, None
        torn = killed and not (draft.fsynced and (draft.replaces or not file.declared))
        unchanged = draft.copied and not draft.changed and not crashed
        if file.gone:
            return
        if not torn and not (draft.replaces and unchanged):
            self._publish(file, draft)
            return
        if torn and not unchanged and draft.content:
            self._keep_torn(file, draft)
        if draft.replaces:
            return
        if file.declared:
            self._fail(file, "EOWNERDEAD", None)
        else:
            self._evict(file, "EOWNERDEAD")

    def _publish(self, file, draft):
        file.current = draft
        file.version += 1
        file.state, file.error, file.deadline = "ready", None, False
        self._settle_waiting(file, draft)

    def _keep_torn(self, file, draft):
        keys = {self.path_of(directory, name) for directory, name in file.names}
        if len(keys) != 1 or any(self._in_the_way(key) for key in keys):
            self.unsure |= keys
        else:
            self.aborted[keys.pop()] = bytes(draft.content)

    def _in_the_way(self, key):
        """A file where there has to be a directory, or the reverse."""
        return any(f"{one}/".startswith(f"{key}/") != (one == key) or f"{key}/".startswith(f"{one}/") != (one == key)
                   for one in (*self.aborted, *self.unsure))

    @staticmethod
    def _settle_waiting(file, *outcomes):
        for descriptor in file.waiting:
            descriptor.settle(*outcomes)
        file.waiting.clear()

    # ---- ends of processes and of the daemon -------------------------------------------------------------------------

    def end_process(self, process, killed):
        """It closes what it has open, in whatever order, and what is bound to it ends, before or after that."""
        bound = [node for node in self.everything() if node.pid == process]
        doomed = self._doomed(bound)
        waiting = {file: list(file.waiting) for file in doomed}
        self.unsure |= {self.path_of(*name) for file in doomed if file.draft for name in file.names}
        for descriptor in [one for one in self.opens if one.process == process]:
            try:
                self.close(descriptor, killed)
            except Refused:
                pass  # nobody hears it
        for node in bound:
            self._expire(node)
        for descriptors in waiting.values():
            for descriptor in descriptors:
                if descriptor.outcomes and "ECANCELED" not in descriptor.outcomes:
                    descriptor.outcomes.append("ECANCELED")

    def _doomed(self, nodes):
        """The files that end with these."""
        files = set()
        for node in nodes:
            if isinstance(node, File):
                files.add(node)
            elif isinstance(node, Directory):
                files |= self._doomed(node.entries.values())
        return files

    def crash(self):
        """The daemon is killed and started again: all descriptors are lost, drafts are as if their writers were killed.
        Processes live on."""
        drafts = {one.file: one.version for one in self.opens if one.writes and one.file.draft is one.version}
        takers = self.takers()
        self.opens.clear()
        for descriptor in takers:
            descriptor.file.taken = None
            self._give_back(descriptor)
        for file in drafts:
            file.waiting.clear()
            self._settle_draft(file, killed=True, crashed=True)
        for _, file in (*self.files(), *self.files(self.areas["own"])):
            file.waiting.clear()
