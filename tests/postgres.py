"""A real PostgreSQL server for tests: one for all who test in this worktree at a time, and a database a test.

Whoever uses it holds a shared lock on the file `users` beside it, which the system takes away with the
process, however that ends. A keeper waits until nobody holds one, stops the server and deletes it. Tests in
Rust ask `python tests/postgres.py serve` for databases. Invariant: the shared server is started and stopped
only under the lock of the file `door`.
"""

import atexit
import contextlib
import fcntl
import hashlib
import os
import pwd
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Between two of cargo's test binaries nobody uses it.
LINGER_S = 10
START_S = 60
# The lock, or BlockingIOError.
TRY = fcntl.LOCK_EX | fcntl.LOCK_NB
# How `serve` ends where there is no server.
MISSING = 3
PASSWORD = "not/a secret@all"
# Quick, small, and quiet: what must outlive a loss of power is no matter of these tests.
SETTINGS = {
    "log_checkpoints": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "log_line_prefix": "%m [%p] %d ",
}
# Through the socket, whose folder is ours, as anybody; through loopback, where others are, by password.
ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


class Missing(Exception):
    """There is no PostgreSQL here that could be started."""


class Server:
    """One in a folder of its own, which need not be there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"

    def start(self, settings: dict[str, str] | None = None, access: str = ACCESS) -> None:
        """Makes it anew and waits until it answers."""
        program("postgres")
        shutil.rmtree(self.data, ignore_errors=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        owner = unprivileged()
        if owner is not None:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        if owner is not None:
            os.chown(password, owner.pw_uid, owner.pw_gid)
        words = ["--no-sync", "--no-instructions", "--username=postgres", f"--pwfile={password}"]
        run("initdb", *words, "--encoding=UTF8", "--locale=C.UTF-8", "--auth=trust", f"--pgdata={self.data}")
        (self.data / "pg_hba.conf").write_text(access)
        port = free_port()
        own = {"unix_socket_directories": self.folder, "listen_addresses": "127.0.0.1", "port": port}
        lines = [f"{name} = '{value}'\n" for name, value in (SETTINGS | own | (settings or {})).items()]
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(lines)
        (self.folder / "port").write_text(str(port))
        self.resume()

    def resume(self) -> None:
        """Starts it again after a stop, on the same port and with what it has."""
        log = self.folder / "log"
        try:
            run("pg_ctl", "start", "--wait", f"--timeout={START_S}", f"--log={log}", f"--pgdata={self.data}")
        except RuntimeError as error:
            told = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{error}\n{told}") from None

    def stop(self, mode: str = "immediate") -> None:
        """`immediate` is a crash, `fast` ends every connection, `smart` waits for them."""
        run("pg_ctl", "stop", f"--mode={mode}", "--wait", f"--pgdata={self.data}")

    def remove(self) -> None:
        """Stops it, if it runs, and deletes all of it."""
        with contextlib.suppress(RuntimeError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def answers(self) -> bool:
        """Whether somebody listens."""
        with socket.socket(socket.AF_UNIX) as knock, contextlib.suppress(OSError):
            knock.settimeout(START_S)
            knock.connect(str(self.folder / f".s.PGSQL.{self.port}"))
            return True
        return False

    @property
    def port(self) -> int:
        """It is the same for the socket and for loopback; 0 if it was never started."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.folder / "port").read_text())
        return 0

    def url(self, database: str = "postgres") -> str:
        """By which anybody of this user gets in, through the socket."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder))}&port={self.port}"

    def loopback_url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        """The same through loopback, where a password is asked for."""
        return f"postgresql://postgres:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """What a statement returns, as text."""
        return sql(self.url(database), statement)

    def cut(self, database: str) -> None:
        """Ends every connection to a database."""
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Whoever asks gets no answer meanwhile: it takes connections, and that is all."""
        postmaster = int((self.data / "postmaster.pid").read_text().split("\n")[0])
        # Those that it starts before it stands still are found after that.
        stopped = [postmaster]
        os.kill(postmaster, signal.SIGSTOP)
        try:
            for stat in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    process, parent = (
                        int(stat.parent.name),
                        int(stat.read_text().rpartition(")")[2].split()[1]),
                    )
                    if parent == postmaster:
                        os.kill(process, signal.SIGSTOP)
                        stopped.append(process)
            yield
        finally:
            for process in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The name of a database that is deleted at the end, whoever is still connected."""
        name = f"test_{uuid.uuid4().hex}"
        self.sql(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextlib.contextmanager
    def store(self) -> Iterator[str]:
        """The same by its URL."""
        with self.database() as name:
            yield self.url(name)


@contextlib.contextmanager
def own_server() -> Iterator[Server]:
    """One that may be stopped, and that keeps what was committed when it crashes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="cloaca-") as parent:
        Path(parent).chmod(0o711)
        server = Server(Path(parent) / "own")
        server.start({"fsync": "on", "full_page_writes": "on"})
        try:
            yield server
        finally:
            server.remove()


class Way:
    """A port of loopback that leads to a server, and on which nothing moves while it is cut."""

    def __init__(self, server: Server) -> None:
        self._socket = str(server.folder / f".s.PGSQL.{server.port}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._bell, self._ringing = socket.socketpair()
        self._is_cut = False
        self._last_words: list[bytes] = []
        self._is_refused = False
        self._is_closed = False
        self._other: dict[socket.socket, socket.socket] = {}
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        self._is_cut = True
        self._ringing.send(b"\0")
        try:
            yield
        finally:
            self._is_cut = False
            self._ringing.send(b"\0")

    @contextlib.contextmanager
    def cut_behind(self, *words: bytes) -> Iterator[threading.Event]:
        """The same once clients have said all these words in their order; then what this gives is set."""
        self._heard = threading.Event()
        self._last_words = list(words)
        try:
            yield self._heard
        finally:
            self._last_words, self._is_cut = [], False
            self._ringing.send(b"\0")

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Every connection ends at once meanwhile, those that there are and those that come."""
        self._is_refused = True
        self._ringing.send(b"\0")
        try:
            yield
        finally:
            self._is_refused = False

    def close(self) -> None:
        """Ends it, and every connection through it."""
        self._is_closed = True
        self._ringing.send(b"\0")
        self._thread.join()
        for one in (*self._other, self._listener, self._bell, self._ringing):
            one.close()

    def _carry(self) -> None:
        while not self._is_closed:
            with selectors.DefaultSelector() as selector:
                selector.register(self._bell, selectors.EVENT_READ)
                # What comes meanwhile waits, as behind a cable that somebody pulled.
                for one in () if self._is_cut else (self._listener, *self._other):
                    selector.register(one, selectors.EVENT_READ)
                ready = [key.fileobj for key, _ in selector.select()]
            for one in ready:
                assert isinstance(one, socket.socket)
                if self._is_cut and one is not self._bell:
                    continue
                if one is self._bell:
                    one.recv(4096)
                    if self._is_refused:
                        self._end_all()
                elif one is self._listener:
                    self._connect()
                elif one in self._other:
                    self._move(one)

    def _connect(self) -> None:
        client = self._listener.accept()[0]
        if self._is_refused:
            client.close()
            return
        server = socket.socket(socket.AF_UNIX)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            server.connect(self._socket)
        except OSError:
            client.close()
            server.close()
        else:
            self._other |= {client: server, server: client}

    def _end_all(self) -> None:
        for one in self._other:
            one.close()
        self._other = {}

    def _move(self, one: socket.socket) -> None:
        other = self._other[one]
        try:
            if moved := one.recv(1 << 16):
                other.sendall(moved)
                while self._last_words and self._last_words[0] in moved:
                    moved = moved.partition(self._last_words.pop(0))[2]
                    if not self._last_words:
                        self._is_cut = True
                        self._heard.set()
                return
        except OSError:
            pass
        del self._other[one], self._other[other]
        one.close()
        other.close()


class Pooler:
    """PgBouncer in transaction mode before a server."""

    def __init__(self, server: Server) -> None:
        self.port = free_port()
        folder = server.folder / f"pooler-{self.port}"
        folder.mkdir()
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={server.folder} port={server.port} user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 5\n"
        )
        owner = unprivileged()
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [program("pgbouncer"), str(settings)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **whose(owner),
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        self.stop()
        raise RuntimeError(f"pgbouncer does not listen: {(folder / 'log').read_text()}")

    def url(self, database: str) -> str:
        """By which a client gets to a database of the server."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def stop(self) -> None:
        """Ends it, and every connection through it."""
        self.process.kill()
        self.process.wait()


def sql(url: str, statement: str) -> list[list[str]]:
    """What a statement returns, as text."""
    told = run("psql", "-XAtF\t", "--set=ON_ERROR_STOP=1", f"--command={statement}", url, user=None)
    return [line.split("\t") for line in told.split("\n")[:-1]]


def program(name: str) -> str:
    """The path of one of PostgreSQL's, the newest; Debian has those of servers on nobody's PATH."""
    there = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
    found = str(there[-1]) if there else shutil.which(name, path=path)
    if found is None:
        raise Missing(f"there is no program '{name}'; install PostgreSQL")
    return found


def unprivileged() -> pwd.struct_passwd | None:
    """Who the server runs as, where we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    for name in ["postgres", "nobody"]:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Missing("root starts no PostgreSQL server, and there is neither a user 'postgres' nor 'nobody'")


def whose(owner: pwd.struct_passwd | None) -> dict[str, Any]:
    """As whom a program is started; as we are, if nobody is named."""
    return {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def run(name: str, *words: str, user: str | None = "server") -> str:
    """What a program printed, as whom the server runs, out of reach of the terminal's signals."""
    owner = unprivileged() if user == "server" else None
    # The server inherits the streams of who starts it, so that a pipe would never end.
    with tempfile.TemporaryFile() as told:
        done = subprocess.run(
            [program(name), *words],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            cwd="/",
            start_new_session=True,
            **whose(owner),
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
        )
        told.seek(0)
        text = told.read().decode(errors="replace")
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed with {done.returncode}: {text}")
    return text


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Holds a lock on a file that stays."""
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield file.fileno()


class Shared:
    """The server in a folder, started by who needs it first and removed after the last."""

    def __init__(self, folder: Path, linger_s: float = LINGER_S) -> None:
        self.server = Server(folder)
        self.linger_s = linger_s
        # They outlive the folder: a lock on a file that was deleted is another one than on its successor.
        self.locks = folder.with_name(f"{folder.name}.locks")
        self.locks.mkdir(mode=0o700, exist_ok=True)

    def use(self) -> Server:
        """The server, until this process ends.

        Raises:
            Missing: If none can be had.
        """
        users = (self.locks / "users").open("a")
        # Released when it is closed, and that is at the end: of this process, and of none that it starts.
        atexit.register(users.close)
        fcntl.flock(users, fcntl.LOCK_SH)
        with locked(self.locks / "door"):
            if not self.server.answers():
                self.server.remove()
                self.server.start()
            with contextlib.suppress(BlockingIOError), locked(self.locks / "keeper", TRY) as held:
                self.call_keeper(held)
        return self.server

    def call_keeper(self, held: int) -> None:
        """Starts it, out of reach of the terminal, with the lock that says that it is there."""
        keeper = subprocess.Popen(
            [sys.executable, __file__, "keep", str(self.server.folder), str(self.linger_s), str(held)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[held],
            start_new_session=True,
            cwd="/",
        )
        # It outlives us, and is nobody's to wait for.
        keeper.returncode = 0

    def keep(self, held: int) -> None:
        """Waits until nobody uses the server, stops and deletes it."""
        while True:
            with locked(self.locks / "users"):
                pass
            time.sleep(self.linger_s)
            with (
                locked(self.locks / "door"),
                contextlib.suppress(BlockingIOError),
                locked(self.locks / "users", TRY),
            ):
                self.server.remove()
                # Before the door opens, or who comes next would believe us there.
                os.close(held)
                return


def of_this_worktree() -> Shared:
    """In a folder with a short name, as the path of a socket in it must be short."""
    here = hashlib.sha256(f"{Path(__file__).resolve()} {os.geteuid()}".encode()).hexdigest()[:12]
    return Shared(Path("/tmp") / f"cloaca-postgres-{here}")


def serve() -> int:
    """Answers the line `new` with the URL of a fresh database, which lives until `drop URL` or the end.

    A line `cut URL` ends every connection to it.
    """
    try:
        server = of_this_worktree().use()
    except Missing as why:
        print(why, file=sys.stderr)
        return MISSING
    with contextlib.ExitStack() as all_of_them:
        kept: dict[str, contextlib.ExitStack] = {}
        names: dict[str, str] = {}
        for line in sys.stdin:
            match line.split():
                case ["new"]:
                    one = all_of_them.enter_context(contextlib.ExitStack())
                    name = one.enter_context(server.database())
                    url = server.url(name)
                    kept[url], names[url] = one, name
                case ["cut", url]:
                    server.cut(names[url])
                case ["drop", url]:
                    kept.pop(url).close()
            print(url, flush=True)
    return 0


def main(words: Sequence[str]) -> int:
    """What other programs call."""
    match words:
        case ["serve"]:
            return serve()
        case ["keep", folder, linger_s, held]:
            Shared(Path(folder), float(linger_s)).keep(int(held))
            return 0
    print("usage: postgres.py serve", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
